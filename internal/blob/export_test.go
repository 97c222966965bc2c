package blob

// SetBoot lets a Disk believe that the machine was started as that.
func (d *Disk) SetBoot(id string) { d.boot = id }

// SlotSize is the size of one slot of a sidecar.
const SlotSize = slotSize
