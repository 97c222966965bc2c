package sqldb

// BreakCheckpoints has what copies the log beside the writer fail from now on.
func (db *DB) BreakCheckpoints() error { return db.log.conn.Close() }
