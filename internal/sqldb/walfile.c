// A VFS whose write-ahead logs are written in few, large pieces. SQLite writes each page
// of a commit by two calls, one for 24 bytes, and then, with synchronous=FULL, syncs them
// all: what is written one behind the other is kept here until then. Nobody looks for it
// before: other connections read a commit once SQLite has told them of it, which is after
// the sync. Writes reach the file in the order in which SQLite made them, and an error
// comes from the sync of the same commit at the latest.
//
// What is still kept when SQLite lets others write is of a transaction that was taken back.
// It is dropped, as the others write in its place. That is seen by the lock, which belongs
// to the database: of that file one method is replaced. All else is that of the VFS below,
// SQLite's own.

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "walfile.h"

// SQLite's own VFS writes no more than 128 KiB at a time.
enum { PIECE = 124 * 1024 };

typedef struct database_file database_file;

typedef struct {
	sqlite3_file base;
	sqlite3_file *file;      // that of the VFS below, in the same allocation
	char *kept;              // bytes not written yet
	int length;              // of kept
	sqlite3_int64 from;      // the offset of kept
	database_file *database; // or NULL
} wal_file;

// What is added behind the database's file as the VFS below has it.
struct database_file {
	sqlite3_io_methods methods; // those of the VFS below, but for xShmLock
	int (*lock)(sqlite3_file *, int offset, int n, int flags);
	wal_file *wal; // the log of this connection, or NULL
};

static sqlite3_vfs *below;
static int behind; // the offset of database_file from the start of a file

static int flush(wal_file *w) {
	int length = w->length;
	w->length = 0;
	return length == 0 ? SQLITE_OK : w->file->pMethods->xWrite(w->file, w->kept, length, w->from);
}

static int wal_close(sqlite3_file *f) {
	wal_file *w = (wal_file *)f;
	if (w->database != NULL) w->database->wal = NULL;
	free(w->kept);
	return w->file->pMethods->xClose(w->file);
}

static int wal_read(sqlite3_file *f, void *out, int amount, sqlite3_int64 offset) {
	wal_file *w = (wal_file *)f;
	if (w->length > 0 && offset < w->from + w->length && offset + amount > w->from) {
		int flushed = flush(w);
		if (flushed != SQLITE_OK) return flushed;
	}
	return w->file->pMethods->xRead(w->file, out, amount, offset);
}

static int wal_write(sqlite3_file *f, const void *data, int amount, sqlite3_int64 offset) {
	wal_file *w = (wal_file *)f;
	if (offset != w->from + w->length || amount > PIECE - w->length) {
		int flushed = flush(w);
		if (flushed != SQLITE_OK) return flushed;
		w->from = offset;
	}
	if (amount > PIECE) return w->file->pMethods->xWrite(w->file, data, amount, offset);
	memcpy(w->kept + w->length, data, amount);
	w->length += amount;
	return SQLITE_OK;
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

static int database_lock(sqlite3_file *f, int at, int n, int flags) {
	database_file *d = added(f);
	if (at == WAL_WRITE_LOCK && (flags & SQLITE_SHM_UNLOCK) != 0 && d->wal != NULL) d->wal->length = 0;
	return d->lock(f, at, n, flags);
}

static int open_database(const char *name, sqlite3_file *f, int flags, int *out) {
	int opened = below->xOpen(below, name, f, flags, out);
	// Where logs have no index that is shared, nobody else writes either.
	if (opened != SQLITE_OK || f->pMethods->iVersion < 2 || f->pMethods->iVersion > 3) return opened;
	database_file *d = added(f);
	memset(d, 0, sizeof *d);
	memcpy(&d->methods, f->pMethods, f->pMethods->iVersion == 2 ? offsetof(sqlite3_io_methods, xFetch) : sizeof d->methods);
	d->lock = d->methods.xShmLock;
	if (d->lock == NULL) return opened;
	d->methods.xShmLock = database_lock;
	f->pMethods = &d->methods;
	return opened;
}

static int open_wal(const char *name, sqlite3_file *f, int flags, int *out) {
	wal_file *w = (wal_file *)f;
	memset(w, 0, sizeof *w); // SQLite closes what has methods
	w->file = (sqlite3_file *)(w + 1);
	w->kept = malloc(PIECE);
	if (w->kept == NULL) return SQLITE_NOMEM;
	int opened = below->xOpen(below, name, w->file, flags, out);
	if (opened != SQLITE_OK) {
		free(w->kept);
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
