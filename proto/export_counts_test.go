package proto

// FilesSent has a client of version 4 take it that so many files were sent in each
// of its connections, and returns how many those are. None is on its way.
func FilesSent(c *Client, n uint64) (connections int) {
	v := c.version.(*clientV4)
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, r := range v.idle.resting {
		r.line.number = n
		connections++
	}
	if v.shared != nil {
		v.shared.mu.Lock()
		defer v.shared.mu.Unlock()
		v.shared.number = n
		connections++
	}
	return connections
}

// LastNumbers are those of the last file in the connection of small ones, and in
// that of a large one that is used next. There are both.
func LastNumbers(c *Client) (small, large uint64) {
	v := c.version.(*clientV4)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.shared.mu.Lock()
	defer v.shared.mu.Unlock()
	return v.shared.number, v.idle.resting[len(v.idle.resting)-1].line.number
}
