package proto

import "sync"

// A roomV3 is the buffers of one file on its way in.
type roomV3 struct {
	in    []byte // as it comes from the connection
	plain []byte // decrypted; a block longer than in
	pool  *sync.Pool
}

// Every file starts in a small room and moves when it has come so far: it takes
// bytes, not claims, to make a session hold more.
const (
	smallRoom = 16 << 10
	largeRoom = 64 << 10
	moveAfter = 64 << 10
)

// The rooms that nobody is in. They are shared by all sessions, which come and
// go with their connections.
var (
	smallRooms = roomsOf(smallRoom)
	largeRooms = roomsOf(largeRoom)
)

func roomsOf(size int) *sync.Pool {
	p := new(sync.Pool)
	p.New = func() any {
		const block = 16
		return &roomV3{in: make([]byte, size), plain: make([]byte, 0, size+block), pool: p}
	}
	return p
}

// occupy moves the session's buffer into a room of that kind.
func (s *sessionV3) occupy(rooms *sync.Pool) {
	old := s.room
	s.room = rooms.Get().(*roomV3)
	s.use(s.room.in)
	if old != nil {
		old.pool.Put(old)
	}
}

// vacate leaves the room, if there is one and what is unread fits elsewhere.
func (s *sessionV3) vacate() {
	if s.room == nil || s.w-s.r > firstBuffer {
		return
	}
	s.use(make([]byte, firstBuffer))
	s.room.pool.Put(s.room)
	s.room = nil
}
