// A VFS whose write-ahead logs are written in few, large pieces. SQLite writes each page
// of a commit by two calls, one for 24 bytes, and then, with synchronous=FULL, syncs them
// all: what is written one behind the other is kept here until then. Nobody looks for it
// before: other connections read a commit once SQLite has told them of it, which is after
// the sync. Writes reach the file in the order in which SQLite made them, and an error
// comes from the sync of the same commit at the latest.
//
// What is still kept when SQLite lets others write is of a transaction that was taken back.
// It is dropped, as the others write in its place. That is seen by the lock, which belongs
// to the database.
//
// A checkpoint copies pages from the log to the database one by one, in the order of their
// numbers. Those that are neighbours there are written together as well, and frames that are
// neighbours in the log are read together. SQLite looks for an error of what it wrote last only
// if it copies the whole log: it cuts the database to its size then, and syncs it. So this is
// done only where it does, and where nobody can add to the log before it has looked whether that is
// the whole log, as the lock for that is held.
//
// For this some methods of the database's file are replaced. All else is that of the VFS below,
// SQLite's own.

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "walfile.h"

// SQLite's own VFS writes no more than 128 KiB at a time.
enum { PIECE = 124 * 1024 };

typedef struct database_file database_file;

// Bytes that are to be written, or were read, one behind the other.
typedef struct {
	char *bytes; // PIECE of them
	int length;
	sqlite3_int64 from; // the offset in the file
} piece;

typedef struct {
	sqlite3_file base;
	sqlite3_file *file;      // that of the VFS below, in the same allocation
	piece kept;              // not written yet
	database_file *database; // or NULL
} wal_file;

// What is added behind the database's file as the VFS below has it.
struct database_file {
	sqlite3_io_methods methods; // those of the VFS below, but for what is replaced
	const sqlite3_io_methods *below;
	wal_file *wal; // the log of this connection, or NULL
	int writing;   // whether this connection has the lock for writing

	// Of a checkpoint.
	int copying;        // whether pages are gathered
	int barred;         // whether the lock for writing was taken for that
	int failed;         // the error of what was written last, of which SQLite is still to be told
	piece pages;        // not written yet
	piece frames;       // of the log, read ahead
	sqlite3_int64 next; // where the page is in the log that is behind the one read last
};

static sqlite3_vfs *below;
static int behind; // the offset of database_file from the start of a file

static int write_piece(sqlite3_file *f, const sqlite3_io_methods *methods, piece *p) {
	int length = p->length;
	p->length = 0;
	return length == 0 ? SQLITE_OK : methods->xWrite(f, p->bytes, length, p->from);
}

// Adds to a piece, which is written before if this does not fit behind it.
static int add(sqlite3_file *f, const sqlite3_io_methods *methods, piece *p, const void *data, int amount, sqlite3_int64 offset) {
	if (offset != p->from + p->length || amount > PIECE - p->length) {
		int written = write_piece(f, methods, p);
		if (written != SQLITE_OK) return written;
		p->from = offset;
	}
	if (amount > PIECE) return methods->xWrite(f, data, amount, offset);
	memcpy(p->bytes + p->length, data, amount);
	p->length += amount;
	return SQLITE_OK;
}

static int flush(wal_file *w) {
	return write_piece(w->file, w->file->pMethods, &w->kept);
}

static int wal_close(sqlite3_file *f) {
	wal_file *w = (wal_file *)f;
	if (w->database != NULL) w->database->wal = NULL;
	free(w->kept.bytes);
	return w->file->pMethods->xClose(w->file);
}

// Reads a frame's page in a checkpoint, and with it those behind it, twice as many each time that
// they were asked for.
static int read_ahead(wal_file *w, database_file *d, void *out, int amount, sqlite3_int64 offset) {
	piece *p = &d->frames;
	if (offset < p->from || offset + amount > p->from + p->length) {
		int length = amount;
		if (offset == d->next) {
			length = 2 * (p->length > amount ? p->length : amount + FRAME_HEADER);
			if (length > PIECE) length = PIECE;
		}
		p->length = 0;
		if (length == amount || w->file->pMethods->xRead(w->file, p->bytes, length, offset) != SQLITE_OK) { // the log may end before
			d->next = offset + amount + FRAME_HEADER;
			return w->file->pMethods->xRead(w->file, out, amount, offset);
		}
		p->from = offset;
		p->length = length;
	}
	memcpy(out, p->bytes + (offset - p->from), amount);
	d->next = offset + amount + FRAME_HEADER;
	return SQLITE_OK;
}

static int wal_read(sqlite3_file *f, void *out, int amount, sqlite3_int64 offset) {
	wal_file *w = (wal_file *)f;
	piece *p = &w->kept;
	if (p->length > 0 && offset < p->from + p->length && offset + amount > p->from) {
		int flushed = flush(w);
		if (flushed != SQLITE_OK) return flushed;
	}
	if (w->database != NULL && w->database->copying) return read_ahead(w, w->database, out, amount, offset);
	return w->file->pMethods->xRead(w->file, out, amount, offset);
}

static int wal_write(sqlite3_file *f, const void *data, int amount, sqlite3_int64 offset) {
	wal_file *w = (wal_file *)f;
	return add(w->file, w->file->pMethods, &w->kept, data, amount, offset);
}

static int wal_truncate(sqlite3_file *f, sqlite3_int64 size) {
	wal_file *w = (wal_file *)f;
	int flushed = flush(w);
	return flushed != SQLITE_OK ? flushed : w->file->pMethods->xTruncate(w->file, size);
}

static int wal_sync(sqlite3_file *f, int flags) {
	wal_file *w = (wal_file *)f;
	int flushed = flush(w);
	return flushed != SQLITE_OK ? flushed : w->file->pMethods->xSync(w->file, flags);
}

static int wal_size(sqlite3_file *f, sqlite3_int64 *size) {
	wal_file *w = (wal_file *)f;
	int flushed = flush(w);
	return flushed != SQLITE_OK ? flushed : w->file->pMethods->xFileSize(w->file, size);
}

static int wal_lock(sqlite3_file *f, int level) {
	wal_file *w = (wal_file *)f;
	return w->file->pMethods->xLock(w->file, level);
}

static int wal_unlock(sqlite3_file *f, int level) {
	wal_file *w = (wal_file *)f;
	return w->file->pMethods->xUnlock(w->file, level);
}

static int wal_reserved(sqlite3_file *f, int *out) {
	wal_file *w = (wal_file *)f;
	return w->file->pMethods->xCheckReservedLock(w->file, out);
}

static int wal_control(sqlite3_file *f, int op, void *arg) {
	wal_file *w = (wal_file *)f;
	return w->file->pMethods->xFileControl(w->file, op, arg);
}

static int wal_sector(sqlite3_file *f) {
	wal_file *w = (wal_file *)f;
	return w->file->pMethods->xSectorSize(w->file);
}

static int wal_device(sqlite3_file *f) {
	wal_file *w = (wal_file *)f;
	return w->file->pMethods->xDeviceCharacteristics(w->file);
}

static const sqlite3_io_methods wal_methods = {
	.iVersion = 1,
	.xClose = wal_close,
	.xRead = wal_read,
	.xWrite = wal_write,
	.xTruncate = wal_truncate,
	.xSync = wal_sync,
	.xFileSize = wal_size,
	.xLock = wal_lock,
	.xUnlock = wal_unlock,
	.xCheckReservedLock = wal_reserved,
	.xFileControl = wal_control,
	.xSectorSize = wal_sector,
	.xDeviceCharacteristics = wal_device,
};

// Where a file of the VFS below has what is added to it.
static database_file *added(sqlite3_file *f) {
	return (database_file *)((char *)f + behind);
}

static int database_write(sqlite3_file *f, const void *data, int amount, sqlite3_int64 offset) {
	database_file *d = added(f);
	if (!d->copying) return d->below->xWrite(f, data, amount, offset);
	return add(f, d->below, &d->pages, data, amount, offset);
}

// Lets others write again. It returns the error that SQLite was not told of yet.
static int end_checkpoint(sqlite3_file *f, database_file *d) {
	int failed = d->failed;
	d->failed = SQLITE_OK;
	if (d->barred) d->below->xShmLock(f, WAL_WRITE_LOCK, 1, SQLITE_SHM_UNLOCK | SQLITE_SHM_EXCLUSIVE);
	d->barred = 0;
	return failed;
}

// What SQLite asks for first when it has found that it copied the whole log. It syncs the file after it.
static int database_truncate(sqlite3_file *f, sqlite3_int64 size) {
	database_file *d = added(f);
	int failed = end_checkpoint(f, d);
	return failed != SQLITE_OK ? failed : d->below->xTruncate(f, size);
}

// Begins to gather pages if the checkpoint is of the whole log, and nobody can add to it.
static void begin_copying(sqlite3_file *f, database_file *d) {
	void volatile *index = NULL;
	if (d->pages.bytes == NULL || d->frames.bytes == NULL) return;
	if (d->below->xShmMap(f, 0, WAL_INDEX_SIZE, 0, &index) != SQLITE_OK || index == NULL) return;
	if (!d->writing) {
		if (d->below->xShmLock(f, WAL_WRITE_LOCK, 1, SQLITE_SHM_LOCK | SQLITE_SHM_EXCLUSIVE) != SQLITE_OK) return;
		d->barred = 1;
	}
	uint32_t volatile *words = index;
	d->copying = words[WAL_INDEX_ATTEMPTED] == words[WAL_INDEX_FRAMES];
	d->pages.length = d->frames.length = 0;
	d->next = 0;
	if (!d->copying) end_checkpoint(f, d);
}

static void end_copying(sqlite3_file *f, database_file *d) {
	if (d->copying) d->failed = write_piece(f, d->below, &d->pages);
	d->copying = 0;
}

static int database_control(sqlite3_file *f, int op, void *arg) {
	database_file *d = added(f);
	if (op == SQLITE_FCNTL_CKPT_START) begin_copying(f, d);
	if (op == SQLITE_FCNTL_CKPT_DONE) end_copying(f, d);
	return d->below->xFileControl(f, op, arg);
}

static int database_lock(sqlite3_file *f, int at, int n, int flags) {
	database_file *d = added(f);
	int unlock = (flags & SQLITE_SHM_UNLOCK) != 0;
	if (unlock && at == WAL_WRITE_LOCK && d->wal != NULL) d->wal->kept.length = 0;
	if (unlock && at == WAL_FIRST_READ_LOCK) end_checkpoint(f, d); // of one that did not get so far
	int done = d->below->xShmLock(f, at, n, flags);
	if (done == SQLITE_OK && at == WAL_WRITE_LOCK) d->writing = !unlock;
	return done;
}

static int database_close(sqlite3_file *f) {
	database_file *d = added(f);
	if (d->wal != NULL) d->wal->database = NULL;
	free(d->pages.bytes);
	free(d->frames.bytes);
	return d->below->xClose(f);
}

static int open_database(const char *name, sqlite3_file *f, int flags, int *out) {
	int opened = below->xOpen(below, name, f, flags, out);
	// Where logs have no index that is shared, nobody else writes either.
	if (opened != SQLITE_OK || f->pMethods->iVersion < 2 || f->pMethods->iVersion > 3 || f->pMethods->xShmLock == NULL) return opened;
	database_file *d = added(f);
	memset(d, 0, sizeof *d);
	d->below = f->pMethods;
	memcpy(&d->methods, f->pMethods, f->pMethods->iVersion == 2 ? offsetof(sqlite3_io_methods, xFetch) : sizeof d->methods);
	d->methods.xClose = database_close;
	d->methods.xWrite = database_write;
	d->methods.xTruncate = database_truncate;
	d->methods.xFileControl = database_control;
	d->methods.xShmLock = database_lock;
	d->pages.bytes = malloc(PIECE);
	d->frames.bytes = malloc(PIECE);
	f->pMethods = &d->methods;
	return opened;
}

static int open_wal(const char *name, sqlite3_file *f, int flags, int *out) {
	wal_file *w = (wal_file *)f;
	memset(w, 0, sizeof *w); // SQLite closes what has methods
	w->file = (sqlite3_file *)(w + 1);
	w->kept.bytes = malloc(PIECE);
	if (w->kept.bytes == NULL) return SQLITE_NOMEM;
	int opened = below->xOpen(below, name, w->file, flags, out);
	if (opened != SQLITE_OK) {
		free(w->kept.bytes);
		return opened;
	}
	w->base.pMethods = &wal_methods;
	sqlite3_file *database = sqlite3_database_file_object(name);
	if (database->pMethods->xShmLock == database_lock) {
		w->database = added(database);
		w->database->wal = w;
	}
	return SQLITE_OK;
}

static int vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags, int *out) {
	(void)vfs;
	if ((flags & SQLITE_OPEN_WAL) != 0) return open_wal(name, f, flags, out);
	if ((flags & SQLITE_OPEN_MAIN_DB) != 0) return open_database(name, f, flags, out);
	return below->xOpen(below, name, f, flags, out);
}

int ferry_register_vfs(const char *name) {
	static sqlite3_vfs vfs;
	if (sqlite3_vfs_find == NULL || sqlite3_vfs_register == NULL || sqlite3_database_file_object == NULL) return SQLITE_ERROR;
	below = sqlite3_vfs_find(NULL);
	if (below == NULL) return SQLITE_ERROR;
	vfs = *below;
	vfs.zName = name;
	vfs.pNext = NULL;
	behind = (below->szOsFile + 7) & ~7;
	vfs.szOsFile = behind + (int)(sizeof(wal_file) > sizeof(database_file) ? sizeof(wal_file) : sizeof(database_file));
	vfs.xOpen = vfs_open;
	return sqlite3_vfs_register(&vfs, 0);
}
