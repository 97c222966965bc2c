package gateway

import (
	"time"

	"github.com/oklog/ulid/v2"

	"ferry/proto"
)

// State is where an upload stands.
type State string

// The states. An upload is receiving until its bytes and its job are durable;
// delivered, failed and cancelled are final until someone retries or forgets
// it.
const (
	StateReceiving  State = "receiving"  // bytes are coming in; nothing is promised yet
	StateQueued     State = "queued"     // durable; waiting for a worker
	StateDelivering State = "delivering" // a worker is sending it
	StateWaiting    State = "waiting"    // an attempt failed; another one follows at Attempts.NextAt
	StateDelivered  State = "delivered"  // the destination holds it, verified
	StateFailed     State = "failed"     // it cannot succeed as it is: see Error
	StateCancelled  State = "cancelled"  // somebody stopped it before it was delivered
)

// Upload is one file on its way, as the API shows it.
type Upload struct {
	ID          ulid.ULID    `json:"id"`
	Name        string       `json:"name"`
	Size        *int64       `json:"size"` // null while receiving without a declared length
	State       State        `json:"state"`
	Held        bool         `json:"held"`  // kept from being delivered until it is released
	Phase       *proto.Phase `json:"phase"` // null unless delivering
	Progress    Progress     `json:"progress"`
	Attempts    Attempts     `json:"attempts"`
	Mode        *string      `json:"mode"`        // the file's permission bits in octal; null if nobody said
	ModifiedAt  *time.Time   `json:"modified_at"` // when the file was changed last; null if nobody said
	SHA256      *string      `json:"sha256"`      // 64 hexadecimal digits; null while receiving
	Cksum       *uint32      `json:"cksum"`       // POSIX cksum; null while receiving
	Destination string       `json:"destination"` // its URL
	// The name that requests choose the destination by.
	DestinationName string `json:"destination_name" example:"default"`
	// Why it waits though its turn may have come, in words: its destination is
	// paused, cannot be reached, or is configured no more; null otherwise.
	Blocked     *string    `json:"blocked"`
	CreatedAt   time.Time  `json:"created_at"`
	UpdatedAt   time.Time  `json:"updated_at"`
	DeliveredAt *time.Time `json:"delivered_at"`
	Receipt     *string    `json:"receipt"` // where the destination's receipt is; null if there is none
	Error       *string    `json:"error"`   // why it failed, in words; null unless failed
	// What whoever sent it said of it, with ?label=key=value.
	Labels map[string]string `json:"labels"`

	Change int64 `json:"-"` // the number of its last change; 0 while receiving
}

// address is where the API has it.
func (u *Upload) address() string { return "/uploads/" + u.ID.String() }

// Progress counts what the destination has acknowledged; while an upload is
// receiving, what came in.
type Progress struct {
	Bytes        int64 `json:"bytes"`
	TotalBytes   int64 `json:"total_bytes"`
	Packets      int64 `json:"packets"`
	TotalPackets int64 `json:"total_packets"`
}

// Attempts says how often delivery was tried.
type Attempts struct {
	Count     int        `json:"count"`
	LastError *string    `json:"last_error"` // null if the last attempt did not fail
	NextAt    *time.Time `json:"next_at"`    // null unless waiting, or queued for a destination that cannot be reached
}
