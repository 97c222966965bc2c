// A VFS whose write-ahead logs are written in few, large pieces. SQLite writes each page
// of a commit by two calls, one for 24 bytes, and then, with synchronous=FULL, syncs them
// all: what is written one behind the other is kept here until then. Nobody looks for it
// before: other connections read a commit once SQLite has told them of it, which is after
// the sync. Writes reach the file in the order in which SQLite made them, and an error
// comes from the sync of the same commit at the latest. All other files are those of the
// VFS below, SQLite's own.

#include <stdlib.h>
#include <string.h>

#include "walfile.h"

// SQLite's own VFS writes no more than 128 KiB at a time.
enum { PIECE = 124 * 1024 };

typedef struct {
	sqlite3_file base;
	sqlite3_file *file; // that of the VFS below, in the same allocation
	char *kept;         // bytes not written yet
	int length;         // of kept
	sqlite3_int64 from; // the offset of kept
} wal_file;

static sqlite3_vfs *below;

static int flush(wal_file *w) {
	int length = w->length;
	w->length = 0;
	return length == 0 ? SQLITE_OK : w->file->pMethods->xWrite(w->file, w->kept, length, w->from);
}

static int wal_close(sqlite3_file *f) {
	wal_file *w = (wal_file *)f;
	int flushed = flush(w), closed = w->file->pMethods->xClose(w->file);
	free(w->kept);
	return flushed != SQLITE_OK ? flushed : closed;
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

static int vfs_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *f, int flags, int *out) {
	(void)vfs;
	if ((flags & SQLITE_OPEN_WAL) == 0) return below->xOpen(below, name, f, flags, out);
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
	return SQLITE_OK;
}

int ferry_register_vfs(const char *name) {
	static sqlite3_vfs vfs;
	if (sqlite3_vfs_find == NULL || sqlite3_vfs_register == NULL) return SQLITE_ERROR;
	below = sqlite3_vfs_find(NULL);
	if (below == NULL) return SQLITE_ERROR;
	vfs = *below;
	vfs.zName = name;
	vfs.pNext = NULL;
	vfs.szOsFile = (int)sizeof(wal_file) + below->szOsFile;
	vfs.xOpen = vfs_open;
	return sqlite3_vfs_register(&vfs, 0);
}
