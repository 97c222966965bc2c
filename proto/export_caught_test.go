package proto

import "ferry/proto/v4"

// PanicInPackets has a session panic where it reads the packets of a file.
func PanicInPackets(t Transfer) {
	f := t.(*transferV4).s.frames //nolint:forcetypeassert // tests are of that
	f.theirs = func(c v4.Code) bool {
		if c == v4.CodePacket {
			panic("a defect in reading packets")
		}
		return fromClientV4(c)
	}
}

// PanickingAnswers are what a client's reader makes of a panic in reading answers, in
// each version.
func PanickingAnswers() map[string]error {
	_, v4err := (&lineV4{frames: &framesV4{}}).answer()
	_, v3err := new(answersV3).next()
	return map[string]error{"version 4": v4err, "version 3": v3err}
}
