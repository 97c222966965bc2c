package blob

import "os"

// FlushEvery is after how many bytes a large file is flushed while it is written.
const FlushEvery = flushEvery

// SetDataSync is called in place of fdatasync.
func (d *Disk) SetDataSync(sync func(*os.File) error) { d.dataSync = sync }

// SetPast has what follows the first so many bytes of a file written past the
// kernel's cache.
func (d *Disk) SetPast(from int64) { d.Archive, d.directFrom = true, from }

// Past reports whether what is written to the file passes the kernel's cache.
func (s *Staged) Past() bool { return s.direct != nil }

// SetBoot lets a Disk believe that the machine was started as that.
func (d *Disk) SetBoot(id string) { d.boot = id }

// SlotSize is the size of one slot of a sidecar.
const SlotSize = slotSize
