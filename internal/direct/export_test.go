package direct

// Stream copies as a Writer does.
var Stream = stream

// Under is how many writes are under way that no Writer of the pool waits for.
func Under(p *Pool) (n int) {
	for range len(p.idle) {
		r := <-p.idle
		if r != nil {
			n += r.flying
		}
		p.idle <- r
	}
	return n
}
