package sqldb

// SQLite comes with go-sqlite3 and is found when the program is linked.

// #cgo CFLAGS: -std=c11 -Wall -Wextra
// #cgo darwin LDFLAGS: -Wl,-undefined,dynamic_lookup
// #include "walfile.h"
import "C"

import (
	"fmt"
	"sync"
)

// walVFS is the VFS of walfile.c. It is for connections with synchronous=FULL alone, and not for
// locking_mode=exclusive, where SQLite does not say when a checkpoint ends.
const walVFS = "ferry-wal"

// registerVFS makes walVFS known to SQLite.
var registerVFS = sync.OnceValue(func() error {
	if code := C.ferry_register_vfs(C.CString(walVFS)); code != C.SQLITE_OK { // which keeps the name
		return fmt.Errorf("open database: SQLite does not take another way to write its log: code %d", int(code))
	}
	return nil
})
