// What is used of SQLite's interface to the operating system, as its own header has it:
// https://www.sqlite.org/c3ref/vfs.html and io_methods.html. It does not change within
// SQLite 3. go-sqlite3, which brings SQLite, does not hand its header on.

#include <stdint.h>

enum {
	SQLITE_OK = 0,
	SQLITE_ERROR = 1,
	SQLITE_NOMEM = 7,
	SQLITE_OPEN_MAIN_DB = 0x00000100,
	SQLITE_OPEN_WAL = 0x00080000,
	SQLITE_SHM_UNLOCK = 1,
	SQLITE_SHM_LOCK = 2,
	SQLITE_SHM_EXCLUSIVE = 8,
	SQLITE_FCNTL_CKPT_DONE = 37,
	SQLITE_FCNTL_CKPT_START = 39,
};

// https://www.sqlite.org/walformat.html
enum {
	WAL_WRITE_LOCK = 0,
	WAL_FIRST_READ_LOCK = 3, // held by whoever copies the log to the database
	FRAME_HEADER = 24,       // bytes before each page
	WAL_INDEX_SIZE = 32768,  // bytes of its first part
	// Where that has, in words of 32 bits, how many frames the log has, and how many a
	// checkpoint has begun to copy.
	WAL_INDEX_FRAMES = 4,
	WAL_INDEX_ATTEMPTED = 32,
};

typedef int64_t sqlite3_int64;
typedef struct sqlite3_file sqlite3_file;
typedef struct sqlite3_io_methods sqlite3_io_methods;
typedef struct sqlite3_vfs sqlite3_vfs;
typedef void (*sqlite3_syscall_ptr)(void);

struct sqlite3_file {
	const sqlite3_io_methods *pMethods;
};

// A write-ahead log is used by version 1 alone.
struct sqlite3_io_methods {
	int iVersion;
	int (*xClose)(sqlite3_file *);
	int (*xRead)(sqlite3_file *, void *, int amount, sqlite3_int64 offset);
	int (*xWrite)(sqlite3_file *, const void *, int amount, sqlite3_int64 offset);
	int (*xTruncate)(sqlite3_file *, sqlite3_int64 size);
	int (*xSync)(sqlite3_file *, int flags);
	int (*xFileSize)(sqlite3_file *, sqlite3_int64 *size);
	int (*xLock)(sqlite3_file *, int);
	int (*xUnlock)(sqlite3_file *, int);
	int (*xCheckReservedLock)(sqlite3_file *, int *out);
	int (*xFileControl)(sqlite3_file *, int op, void *arg);
	int (*xSectorSize)(sqlite3_file *);
	int (*xDeviceCharacteristics)(sqlite3_file *);
	// Version 2.
	int (*xShmMap)(sqlite3_file *, int page, int size, int extend, void volatile **out);
	int (*xShmLock)(sqlite3_file *, int offset, int n, int flags);
	void (*xShmBarrier)(sqlite3_file *);
	int (*xShmUnmap)(sqlite3_file *, int delete);
	// Version 3.
	int (*xFetch)(sqlite3_file *, sqlite3_int64 offset, int amount, void **out);
	int (*xUnfetch)(sqlite3_file *, sqlite3_int64 offset, void *);
};

// Version 3.
struct sqlite3_vfs {
	int iVersion;
	int szOsFile;
	int mxPathname;
	sqlite3_vfs *pNext;
	const char *zName;
	void *pAppData;
	int (*xOpen)(sqlite3_vfs *, const char *name, sqlite3_file *, int flags, int *out);
	int (*xDelete)(sqlite3_vfs *, const char *name, int sync);
	int (*xAccess)(sqlite3_vfs *, const char *name, int flags, int *out);
	int (*xFullPathname)(sqlite3_vfs *, const char *name, int size, char *out);
	void *(*xDlOpen)(sqlite3_vfs *, const char *name);
	void (*xDlError)(sqlite3_vfs *, int size, char *out);
	void (*(*xDlSym)(sqlite3_vfs *, void *, const char *symbol))(void);
	void (*xDlClose)(sqlite3_vfs *, void *);
	int (*xRandomness)(sqlite3_vfs *, int size, char *out);
	int (*xSleep)(sqlite3_vfs *, int microseconds);
	int (*xCurrentTime)(sqlite3_vfs *, double *);
	int (*xGetLastError)(sqlite3_vfs *, int, char *);
	int (*xCurrentTimeInt64)(sqlite3_vfs *, sqlite3_int64 *);
	int (*xSetSystemCall)(sqlite3_vfs *, const char *name, sqlite3_syscall_ptr);
	sqlite3_syscall_ptr (*xGetSystemCall)(sqlite3_vfs *, const char *name);
	const char *(*xNextSystemCall)(sqlite3_vfs *, const char *name);
};

// Weak, as they are not there yet when cgo links this package alone.
__attribute__((weak)) sqlite3_vfs *sqlite3_vfs_find(const char *name);
__attribute__((weak)) int sqlite3_vfs_register(sqlite3_vfs *, int make_default);
__attribute__((weak)) sqlite3_file *sqlite3_database_file_object(const char *wal);

// ferry_register_vfs registers the VFS of walfile.c under a name that stays valid, and
// returns SQLITE_OK or why not.
int ferry_register_vfs(const char *name);
