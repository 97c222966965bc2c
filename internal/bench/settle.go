package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// settle makes turns alike: what the one before left to be written is written,
// and the memory that this one needs is there. A virtual machine may give free
// memory back to its host, and fetching a page from there again costs more than
// writing it, which would be counted as the contestant's.
func settle(memory int64) error {
	unix.Sync()
	if memory == 0 {
		return nil
	}
	b, err := unix.Mmap(-1, 0, int(memory), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_POPULATE)
	if err != nil {
		return fmt.Errorf("fetch %d bytes of memory: %w", memory, err)
	}
	return unix.Munmap(b)
}
