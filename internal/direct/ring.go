package direct

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"ferry/internal/seccomp"
)

// A ring is the pieces of a Writer, and the way to have the kernel write them:
// a context of asynchronous writes, io_setup(2), and an eventfd(2) that tells of
// what is done. It is used by one goroutine.
type ring struct {
	kernel *kernel
	tell   uint32   // the eventfd
	told   *os.File // the same, to wait for it
	free   []int    // pieces
	flying int      // pieces that are under way
	under  [pieces]flight
	came   [pieces]event
}

// flight is how much of a piece is under way, and where to.
type flight struct {
	n  int
	at int64
}

// kernel is what has to be given back to it.
type kernel struct {
	context uintptr
	memory  []byte
}

// An event is struct io_event of linux/aio_abi.h.
type event struct {
	data uint64
	_    uint64
	res  int64
	_    int64
}

// A control is struct iocb of linux/aio_abi.h, little endian.
type control struct {
	data   uint64
	_      uint64
	opcode uint16
	_      int16
	file   uint32
	memory uint64
	n      uint64
	offset int64
	_      uint64
	flags  uint32
	told   uint32
}

const (
	writeAt  = 1 // IOCB_CMD_PWRITE
	tellThat = 1 // IOCB_FLAG_RESFD
)

func newRing() (*ring, error) {
	if seccomp.Filtered() {
		return nil, fmt.Errorf("%w: system calls are filtered, and one that is not allowed may end the process", errors.ErrUnsupported)
	}
	k := &kernel{}
	//nolint:gosec // as io_setup(2) wants it
	if _, _, e := unix.Syscall(unix.SYS_IO_SETUP, pieces, uintptr(unsafe.Pointer(&k.context)), 0); e != 0 {
		return nil, fmt.Errorf("%w: io_setup: %w", errors.ErrUnsupported, e)
	}
	memory, err := unix.Mmap(-1, 0, Memory, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		k.free()
		return nil, fmt.Errorf("%w: mmap: %w", errors.ErrUnsupported, err)
	}
	k.memory = memory
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		k.free()
		return nil, fmt.Errorf("%w: eventfd: %w", errors.ErrUnsupported, err)
	}
	_ = unix.Madvise(memory, unix.MADV_HUGEPAGE) // fewer pages to hold for each write
	r := &ring{kernel: k, tell: uint32(fd), told: os.NewFile(uintptr(fd), "eventfd")}
	for i := range pieces {
		r.free = append(r.free, i)
	}
	runtime.AddCleanup(r, (*kernel).free, k)
	return r, nil
}

func (k *kernel) free() {
	_, _, _ = unix.Syscall(unix.SYS_IO_DESTROY, k.context, 0, 0)
	if k.memory != nil {
		_ = unix.Munmap(k.memory)
	}
}

// forget gives the memory back until it is used again.
func (r *ring) forget() { _ = unix.Madvise(r.kernel.memory, unix.MADV_DONTNEED) }

// piece is the memory of one.
func (r *ring) piece(i int) []byte {
	return r.kernel.memory[i*pieceSize : (i+1)*pieceSize : (i+1)*pieceSize]
}

// take takes a free piece, of which there is one.
func (r *ring) take() int {
	last := len(r.free) - 1
	i := r.free[last]
	r.free = r.free[:last]
	return i
}

func (r *ring) give(i int) { r.free = append(r.free, i) }

// submit has the kernel write the first n bytes of a piece to the file. The piece is
// under way then, unless there is an error.
func (r *ring) submit(f *os.File, i, n int, at int64) error {
	c := &control{
		data: uint64(i), opcode: writeAt, file: uint32(f.Fd()),
		memory: uint64(uintptr(unsafe.Pointer(&r.piece(i)[0]))), n: uint64(n), offset: at, //nolint:gosec // not negative
		flags: tellThat, told: r.tell,
	}
	//nolint:gosec // as io_submit(2) wants it
	if _, _, e := unix.Syscall(unix.SYS_IO_SUBMIT, r.kernel.context, 1, uintptr(unsafe.Pointer(&c))); e != 0 {
		return e
	}
	r.under[i] = flight{n, at}
	r.flying++
	return nil
}

// reap returns what has been written since the last time, or could not be.
func (r *ring) reap() []event { return r.events(0) }

// wait waits until something is under way no longer. Something is.
func (r *ring) wait() []event {
	var count [8]byte
	if _, err := r.told.Read(count[:]); err != nil {
		return r.events(1) // which takes a thread
	}
	return r.events(0) // there may be none: reap had them
}

// events returns what is done, and waits until there is so much of it.
func (r *ring) events(least uintptr) []event {
	if r.flying == 0 {
		return nil
	}
	for {
		//nolint:gosec // as io_getevents(2) wants it
		n, _, e := unix.Syscall6(unix.SYS_IO_GETEVENTS, r.kernel.context, least, pieces, uintptr(unsafe.Pointer(&r.came)), 0, 0)
		if e == 0 {
			r.flying -= int(n)
			return r.came[:n]
		}
		if e != unix.EINTR { // the context is there, and so is the memory
			panic("direct: io_getevents: " + e.Error())
		}
	}
}
