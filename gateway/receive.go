package gateway

import (
	"context"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"ferry/internal/blob"
	"ferry/internal/sqldb"
	"ferry/proto"
)

const (
	// smallBody is the largest body that is kept in the database beside its job.
	smallBody = 64 << 10
	// maxHeld bounds what a request's small bodies take in memory until they are
	// committed; those beyond go to the spool.
	maxHeld = 4 * smallBody
	// maxFiles bounds the files of one request.
	maxFiles = 1000

	spoolFolder = "spool"
)

var (
	// errLength: the body is shorter or longer than its sender announced.
	errLength = errors.New("the body is not as long as announced")
	// errTooManyFiles: a request has more files than one transaction should.
	errTooManyFiles = fmt.Errorf("more than %d files in one request", maxFiles)
)

// incoming is a file that comes in.
type incoming struct {
	from     *reception
	id       ulid.ULID
	created  time.Time
	declared int64

	mu       sync.Mutex
	name     proto.FileName // guarded by mu
	received int64          // guarded by mu

	// The rest belongs to the reception.
	sum     proto.Sum
	small   []byte
	spooled bool // it is a file of the spool
	again   bool // there is an upload of it already
	kept    Upload
	refused error // instead of kept
}

func (in *incoming) named() proto.FileName {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.name
}

func (in *incoming) came(n int) (total int64) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.received += int64(n)
	return in.received
}

// upload is the file as the API shows it.
func (in *incoming) upload() Upload {
	l := in.from.lane()
	labels, at := in.from.labelled(), in.from.described()
	in.mu.Lock()
	defer in.mu.Unlock()
	u := Upload{
		ID: in.id, Name: in.name.String(), State: StateReceiving, Destination: l.To.String(), DestinationName: l.Name, Labels: labels,
		CreatedAt: in.created, UpdatedAt: in.created,
		Progress: Progress{Bytes: in.received, TotalBytes: in.received},
	}
	at.show(&u)
	if in.declared >= 0 {
		u.Size = new(in.declared)
		u.Progress.TotalBytes = in.declared
	}
	return u
}

// queued is the file as the API shows it once it has been recorded.
func (in *incoming) queued(now time.Time) Upload {
	u := in.upload()
	u.State, u.UpdatedAt = StateQueued, now
	u.Size, u.Cksum = new(in.sum.Size), new(in.sum.Cksum)
	u.SHA256 = new(hex.EncodeToString(in.sum.SHA256[:]))
	u.Progress = Progress{TotalBytes: in.sum.Size}
	in.from.lane().block(&u)
	return u
}

// A reception takes in the files of one request: all of them become jobs, or
// none. Exactly one of commit and abort ends it; abort after commit does
// nothing. It is used by one goroutine.
type reception struct {
	g      *Gateway
	ctx    context.Context
	stop   context.CancelCauseFunc
	from   *caller
	sender sql.Null[string] // the name of the token that it comes with
	files  []*incoming
	held   int  // bytes of small bodies in memory
	once   bool // see receiveOnce
	made   int  // jobs, by commit

	onlyNew bool // commit refuses a file if there is one of its name

	promises []*promise // of room for what is held, until the end
	promised int64      // bytes of them that were declared

	mu        sync.Mutex
	now       phase             // guarded by mu
	labels    map[string]string // of all its files; replaced as a whole; guarded by mu
	at        attributes        // of all its files; guarded by mu
	way       *lane             // of all its files; guarded by mu
	reading   interruptible     // what add reads, or nil; guarded by mu
	committed chan struct{}     // closed when a commit has ended, well or not
}

// phase is where a reception stands.
type phase int

const (
	adding     phase = iota // files may be added, and somebody may interrupt it
	committing              // too late to interrupt it
	ended
)

// receive starts taking in a request's files. When ctx ends, so do they, at the next byte: whoever
// ends it sees to it that one comes, or an error instead, as net/http does.
func (g *Gateway) receive(ctx context.Context) *reception {
	ctx, stop := context.WithCancelCause(ctx)
	return &reception{g: g, ctx: ctx, stop: stop, from: callerOf(ctx), sender: callerOf(ctx).sender(), committed: make(chan struct{}), labels: map[string]string{}, way: g.lanes.first()}
}

// label gives all files of the reception these labels, and no others, until
// commit.
func (r *reception) label(labels map[string]string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.labels = maps.Clone(labels)
}

// describe says what all files of the reception were where they come from.
func (r *reception) describe(at attributes) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.at = at
}

func (r *reception) described() attributes {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.at
}

// to says where all files of the reception go, before the first is added.
func (r *reception) to(o outlet) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.way = o.lane
}

// ifVacant has commit refuse a file if there is one of its name, whatever its content.
func (r *reception) ifVacant() { r.onlyNew = true }

// lane is where the files go.
func (r *reception) lane() *lane {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.way
}

// labelled are the labels, which nobody changes.
func (r *reception) labelled() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.labels
}

// An interruptible body ends its Read when Interrupt is called, from whatever
// goroutine: else an upload whose sender is silent notices that it was
// cancelled at the next byte.
type interruptible interface{ Interrupt() }

// add keeps the bytes of body, hashing while it writes, and shows the file as
// receiving meanwhile. declared is the length the sender announced, -1 if it
// did not; more or fewer bytes are an error. It returns the index of the file.
// Errors: proto.ErrTooLarge as soon as it is known, errSpoolFull,
// errInterrupted, errLength, errTooManyFiles, or body's.
func (r *reception) add(name proto.FileName, declared int64, body io.Reader) (int, error) {
	if len(r.files) == maxFiles {
		return 0, errTooManyFiles
	}
	if limit := r.g.maxSize(r.lane()); declared > limit {
		return 0, tooLarge(limit)
	}
	if err := callerOf(r.ctx).tooLarge(declared); err != nil {
		return 0, err
	}
	promised, err := r.g.room.promise(max(declared, 0))
	if err != nil {
		return 0, err
	}
	keeps := false
	defer func() {
		if !keeps {
			promised.end()
		}
	}()
	id, now := r.g.newID()
	in := &incoming{from: r, id: id, created: now, declared: declared, name: name}
	if !r.show(in) {
		return 0, context.Cause(r.ctx)
	}
	r.reads(body)
	defer r.reads(nil)
	if err := r.take(in, body, promised); err != nil {
		r.g.live.hide(in)
		return 0, r.explain(err)
	}
	if !in.spooled { // commit writes it
		keeps = true
		r.promises = append(r.promises, promised)
		r.promised += max(declared, 0)
	}
	r.files = append(r.files, in)
	return len(r.files) - 1, nil
}

func tooLarge(limit int64) error {
	f := tooLargeRefusal(-1, limit)
	f.err = proto.ErrTooLarge
	return f
}

// show makes the file visible, and so possible to cancel.
func (r *reception) show(in *incoming) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now != adding || r.ctx.Err() != nil {
		return false
	}
	r.g.live.show(in)
	return true
}

// reads notes what add reads from now on, for interrupt.
func (r *reception) reads(body io.Reader) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reading, _ = body.(interruptible)
}

// explain says why a file did not come in: that somebody ended it goes before
// what the body's reader made of that. A context that is merely cancelled is
// net/http's, which has found the body unreadable: the reader knows why.
func (r *reception) explain(err error) error {
	switch {
	case r.ctx.Err() != nil && !errors.Is(context.Cause(r.ctx), context.Canceled):
		return context.Cause(r.ctx)
	case blob.IsFull(err) || sqldb.IsFull(err):
		return fmt.Errorf("%w: %w", errSpoolFull, err)
	}
	return err
}

// take reads the whole body and keeps it: in memory if it is small, else in the
// spool.
func (r *reception) take(in *incoming, body io.Reader, promised *promise) error {
	c := &intake{reception: r, in: in, body: body, promised: promised, sum: proto.NewSummer()}
	var start []byte
	whole := false
	if in.declared <= smallBody && r.held+smallBody <= maxHeld {
		var err error
		if start, whole, err = c.begin(); err != nil {
			return err
		}
	}
	if !whole {
		if err := c.spool(start); err != nil {
			return err
		}
	}
	in.sum = c.sum.Sum()
	if in.declared >= 0 && in.sum.Size != in.declared {
		r.discard(in)
		return short(in)
	}
	if whole {
		in.small = start
		r.held += len(start)
	}
	return nil
}

func short(in *incoming) error {
	return fmt.Errorf("%w: %d of %d bytes came: %w", errLength, in.sum.Size, in.declared, io.ErrUnexpectedEOF)
}

// sha256 is file i's.
func (r *reception) sha256(i int) [32]byte { return r.files[i].sum.SHA256 }

// rename gives file i another name, before commit.
func (r *reception) rename(i int, name proto.FileName) {
	in := r.files[i]
	in.mu.Lock()
	defer in.mu.Unlock()
	in.name = name
}

// commit makes every added file and its job durable, in one transaction, and
// returns them in the order in which they were added.
func (r *reception) commit() ([]Upload, error) {
	if !r.enter(committing) {
		err := context.Cause(r.ctx)
		r.abort()
		return nil, err
	}
	defer r.end()
	uploads := make([]Upload, len(r.files))
	key := keyedOf(r.ctx)
	if err := r.promiseHeld(); err != nil {
		r.undo()
		return nil, err
	}
	var err error
	if key == nil && len(r.files) == 1 {
		in := r.files[0]
		if err = r.g.intakes.UpdateIfRoom(r.ctx, in); err == nil {
			uploads[0], err = in.kept, in.refused
		}
	} else {
		err = r.g.db.UpdateIfRoom(r.ctx, func(ctx context.Context, tx *sql.Tx) error { return r.record(ctx, tx, key, uploads) })
	}
	if err != nil {
		r.undo()
		return nil, r.explain(fmt.Errorf("record uploads: %w", err))
	}
	for _, in := range r.files {
		if in.again {
			r.discard(in)
		} else {
			r.made++
		}
		reuse(in.small)
		in.small = nil
	}
	r.lane().wake(r.made)
	return uploads, nil
}

// record keeps all files in one transaction, with the answer if the request has a key.
func (r *reception) record(ctx context.Context, tx *sql.Tx, key *keyed, uploads []Upload) error {
	if key != nil {
		if err := r.replay(ctx, tx, key); err != nil {
			return err
		}
	}
	if err := r.agree(); err != nil {
		return err
	}
	for i, in := range r.files {
		var err error
		if uploads[i], err = r.keep(ctx, tx, in); err != nil {
			return err
		}
	}
	if key != nil {
		return r.remember(ctx, tx, key, uploads)
	}
	return nil
}

// promiseHeld promises room for what is in memory, as far as nobody had declared that it
// would come.
func (r *reception) promiseHeld() error {
	more := int64(r.held) - r.promised
	if more <= 0 {
		return nil
	}
	p, err := r.g.room.promise(more)
	if err != nil {
		return err
	}
	r.promises = append(r.promises, p)
	return nil
}

// fresh reports whether commit has made any job: else all files were there.
func (r *reception) fresh() bool { return r.made > 0 }

// undo drops what a commit did not take. If it is not certain that it did not,
// the files stay for the next sweep, which knows.
func (r *reception) undo() {
	for _, in := range r.files {
		if _, err := r.g.load(r.ctx, r.g.db.Lookups(), in.id); errors.Is(err, errNotFound) {
			r.discard(in)
		}
	}
}

func (r *reception) discard(in *incoming) {
	if in.spooled {
		r.g.dropFile(in.id)
	}
	in.small = nil
}

// abort drops what was added.
func (r *reception) abort() {
	if !r.enter(ended) {
		return
	}
	for _, in := range r.files {
		r.discard(in)
	}
	r.end()
}

// enter moves on to a phase, unless it is too late for that.
func (r *reception) enter(p phase) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now != adding || p == committing && r.ctx.Err() != nil {
		return false
	}
	r.now = p
	return true
}

func (r *reception) end() {
	r.g.live.hide(r.files...)
	r.mu.Lock()
	r.now = ended
	r.mu.Unlock()
	close(r.committed)
	r.stop(nil)
	for _, p := range r.promises {
		p.end()
	}
	r.files, r.promises = nil, nil
}

// interrupt ends the reception for somebody else, if it is not too late: then
// committed tells when it has ended.
func (r *reception) interrupt() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now != adding {
		return false
	}
	r.stop(errInterrupted) // first: what is read from now on is not waited for
	if r.reading != nil {
		r.reading.Interrupt()
	}
	r.g.live.hideAll(r)
	return true
}

// newID returns an id that is greater than every one before it.
func (g *Gateway) newID() (ulid.ULID, time.Time) {
	g.ids.mu.Lock()
	defer g.ids.mu.Unlock()
	now := g.now()
	ms := max(ulid.Timestamp(now), g.ids.last)
	for {
		id, err := ulid.New(ms, g.ids.entropy)
		if err == nil {
			g.ids.last = ms
			// Lists find by ids when uploads began, so both say the same.
			if at := time.UnixMilli(int64(ms)).UTC(); at.After(now) {
				now = at
			}
			return id, now
		}
		ms++ // more ids in a millisecond than its random part can count
	}
}

// maxSize is how many bytes a file may have that goes there.
func (g *Gateway) maxSize(l *lane) int64 {
	if limit := g.cfg.MaxSize; limit > 0 {
		return min(limit, l.To.MaxSize())
	}
	return l.To.MaxSize()
}
