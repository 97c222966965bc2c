package proto

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"ferry/proto/v4"
)

// A lineV4 is a client's connection, after the handshake. One goroutine reads its
// answers, so that the server is heard while packets are on their way, and a
// connection that it closed between two files is noticed.
type lineV4 struct {
	frames  *framesV4
	conn    net.Conn
	name    ClientName // of the client
	id      ClientID
	pin     Pin // of the server
	welcome v4.Welcome
	packet  int // the largest packet that is asked for

	entered  bool // the handshake is done
	number   uint64
	answered bool // the server said something since the line was taken
	reusable bool // the conversation stands between two files

	answers chan answerV4 // closed by the reader when it ends
	failure error         // why it ended; set before
	quit    chan struct{} // closed by close
	ends    sync.WaitGroup
}

// An answerV4 is what the server said about a file, or with number 0 about the
// session.
type answerV4 struct {
	code    v4.Code
	number  uint64
	offset  int64 // of 1604 and 1611
	vouched *vouched
	differs v4.Differs
	refused v4.Refused
}

// vouched is a receipt that has been verified, and may be for several files.
type vouched struct {
	numbers   []uint64
	statement Statement
	envelope  []byte
}

// dial makes a connection to the server that the destination means, and to no
// other. The client has not said who it is.
func (c *clientV4) dial(ctx context.Context) (*lineV4, error) {
	cfg, err := clientTLS(c.to, c.cfg.To.address)
	if err != nil {
		return nil, err
	}
	conn, err := c.cfg.connect(ctx)
	if err != nil {
		return nil, err
	}
	l := &lineV4{
		frames:  newClientFrames(conn, c.cfg.IdleTimeout, cfg),
		conn:    conn,
		name:    c.cfg.Name,
		packet:  c.to.packet,
		answers: make(chan answerV4),
		quit:    make(chan struct{}),
	}
	if err := l.greet(ctx); err != nil {
		l.close()
		return nil, err
	}
	l.pin = l.frames.pin()
	return l, nil
}

func (l *lineV4) greet(ctx context.Context) error {
	defer context.AfterFunc(ctx, l.hangUp)()
	l.frames.socket.expect()
	defer l.frames.socket.settle()
	return greetingError(l.frames.greet())
}

// greetingError tells a server that is not one of version 4 from a network that
// is bad.
func greetingError(err error) error {
	const ask = "is that a port of version 4?"
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrPin):
		return fmt.Errorf("%w. Nothing was sent to it. If the server was given a new key, compare its fingerprint "+
			"(ferry server fingerprint) and put it in the URL (?pin=) or trust it anew (ferry trust --forget HOST:PORT, then ferry trust HOST:PORT). "+
			"If not, somebody else answers at that address", err)
	case errors.Is(notVouchedFor(err), ErrPin):
		return fmt.Errorf("%w. Nothing was sent to it", notVouchedFor(err))
	case errors.Is(err, ErrProtocol):
		return fmt.Errorf("%w: %s", err, ask)
	case ofTLS(err):
		return fmt.Errorf("%w: %w: %s", ErrProtocol, err, ask)
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return fmt.Errorf("TLS handshake: %w: %s", err, ask)
	}
	return fmt.Errorf("TLS handshake: %w", err)
}

// ofTLS reports whether TLS found something wrong, here or at the other end. For
// most of it crypto/tls has no types.
func ofTLS(err error) bool {
	s := err.Error()
	return strings.HasPrefix(s, "tls: ") || strings.HasPrefix(s, "remote error: tls: ")
}

// hangUp breaks everything off that waits for the server.
func (l *lineV4) hangUp() { _ = l.conn.Close() }

// listen begins to read answers: it is called once, after the handshake.
func (l *lineV4) listen() { l.ends.Go(l.read) }

// close ends the line in a way that tells the server that nothing was cut.
func (l *lineV4) close() {
	if l.entered && l.reusable {
		_ = l.frames.bye() // or else it has ended
	}
	close(l.quit)
	l.hangUp()
	l.ends.Wait()
}

// rest makes the line wait for the next file without owing anything.
func (l *lineV4) rest() { l.frames.socket.settle() }

// quiet reports whether nothing came while the line rested: no end, no word.
func (l *lineV4) quiet() bool {
	select {
	case <-l.answers:
		return false
	default:
		return true
	}
}

// inquire says a message and returns the next answer. What is waited for remains
// so: see [socketV4.settle].
func (l *lineV4) inquire(code v4.Code, number uint64, payload []byte) (answerV4, error) {
	l.frames.socket.expect()
	if err := l.frames.say(code, number, payload); err != nil {
		return l.lastWords(err)
	}
	l.frames.socket.expect()
	return l.await()
}

// await returns the next answer.
func (l *lineV4) await() (answerV4, error) {
	a, ok := <-l.answers
	if !ok {
		return answerV4{}, fmt.Errorf("wait for an answer: %w", l.failure)
	}
	l.answered = true
	return a, nil
}

// lastWords returns the refusal that the server said before the line broke with
// err, if it did.
func (l *lineV4) lastWords(err error) (answerV4, error) {
	l.hurry(lastWords)
	for a := range l.answers {
		if a.code == v4.CodeRefused {
			l.answered = true
			return a, nil
		}
	}
	return answerV4{}, err
}

// hurry ends a wait of the reader by then, one that is under way included.
func (l *lineV4) hurry(d time.Duration) {
	s := l.frames.socket
	s.due.Store(int64(time.Since(s.start) + d))
	_ = s.Conn.SetReadDeadline(time.Now().Add(d))
}

// next is the number of another file.
func (l *lineV4) next() uint64 {
	l.number++
	return l.number
}

func (l *lineV4) read() {
	defer close(l.answers)
	for {
		a, err := l.answer()
		if err != nil {
			l.failure = err
			return
		}
		select {
		case l.answers <- a:
		case <-l.quit:
			l.failure = net.ErrClosed
			return
		}
	}
}

// answer reads the next answer after the handshake.
func (l *lineV4) answer() (_ answerV4, err error) {
	defer caught(&err)
	h, err := l.frames.header()
	if errors.Is(err, io.EOF) {
		return answerV4{}, fmt.Errorf("the server closed the connection: %w", io.ErrUnexpectedEOF)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) && l.frames.socket.prolonged() {
		return answerV4{}, l.frames.socket.onlyStill(err)
	}
	if err != nil {
		return answerV4{}, err
	}
	room := getBuffer(int(h.Length))
	defer func() { putBuffer(room) }()
	b, err := l.frames.body(room)
	if err != nil {
		return answerV4{}, err
	}
	a, err := l.parse(h, b)
	if err != nil && !errors.Is(err, ErrProtocol) {
		err = fmt.Errorf("%w: answer %v: %w", ErrProtocol, h.Code, err)
	}
	return a, err
}

// parse reads an answer, and verifies the receipt in it. b is not kept.
func (l *lineV4) parse(h v4.Header, b []byte) (answerV4, error) {
	a := answerV4{code: h.Code, number: h.Number}
	switch h.Code {
	case v4.CodeGo, v4.CodeThanks:
		m, err := v4.ParseOffset(b)
		a.offset = m.Bytes
		return a, err
	case v4.CodeStored:
		var err error
		a.vouched, err = l.vouch(b)
		return a, err
	case v4.CodeDiffers:
		var err error
		a.differs, err = v4.ParseDiffers(b)
		return a, err
	case v4.CodeRefused:
		var err error
		a.refused, err = v4.ParseRefused(b)
		return a, err
	}
	return a, errors.New("it has no place here")
}

func (l *lineV4) vouch(b []byte) (*vouched, error) {
	m, err := v4.ParseStored(b)
	if err != nil {
		return nil, err
	}
	v := &vouched{numbers: m.Numbers, envelope: append([]byte(nil), m.Envelope...)}
	if v.statement, err = VerifyReceipt(v.envelope, l.pin); err != nil {
		return nil, err
	}
	if v.statement.ClientID != l.id || v.statement.Client != l.name {
		return nil, fmt.Errorf("a receipt for the client %q, %s", v.statement.Client.String(), v.statement.ClientID)
	}
	return v, nil
}

// of returns what the receipt says of a file. Its sum has to be ours, if we
// know it.
func (v *vouched) of(o Offer, ours *Sum) (Stored, error) {
	for _, f := range v.statement.Files {
		if f.Name != o.Name {
			continue
		}
		if ours != nil && f.Sum != *ours || f.Sum.Size != o.Size {
			return Stored{}, fmt.Errorf("%w: the receipt is for other content: %d bytes, SHA-256 %x", ErrProtocol, f.Sum.Size, f.Sum.SHA256)
		}
		return f, nil
	}
	return Stored{}, fmt.Errorf("%w: the receipt says nothing of the file", ErrProtocol)
}

// has reports whether the answer is for the file with that number.
func (v *vouched) has(number uint64) bool {
	return slices.Contains(v.numbers, number)
}

// receipt is that of a file after so many sends.
func (v *vouched) receipt(l *lineV4, f Stored, sends int) Receipt {
	return Receipt{ClientID: l.id, Name: f.Name, Sum: f.Sum, At: time.Now(), Sends: sends, Envelope: v.envelope}
}

// refusalV4 is the error that a 1607 means.
func refusalV4(m v4.Refused) *RefusedError {
	e := &RefusedError{Why: whyV4(m.Reason), Words: printable(m.Words), After: time.Duration(m.After) * time.Millisecond}
	if m.Reason == v4.ReasonExists {
		e.Why = &ExistsError{Sum: sumFromV4(m.Exists)}
	}
	return e
}

// printable is what a peer said, fit to be shown in a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsGraphic(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}

func sumFromV4(m v4.Differs) Sum {
	return Sum{Size: m.Size, Cksum: m.Sum.Cksum, SHA256: m.Sum.SHA256}
}

// offerV4 is an offer as it is on the wire, with the sum if it is known.
func offerV4(o Offer, sum *Sum) v4.Offer {
	m := v4.Offer{Transfer: o.ID, Size: o.Size, Mode: uint32(o.Mode.Perm()), ModTime: v4.NoTime, Name: o.Name.String()}
	if year := o.ModTime.Year(); !o.ModTime.IsZero() && year > 1677 && year < 2262 { // what int64 holds in nanoseconds
		m.ModTime = o.ModTime.UnixNano()
	}
	if sum != nil {
		m.Known, m.Sum = true, v4.Sum{Cksum: sum.Cksum, SHA256: sum.SHA256}
	}
	return m
}
