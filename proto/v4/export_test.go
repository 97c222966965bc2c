package v4

// NewSealerAt is NewSealer of a direction in which so many messages have been
// sealed under this key, with keys that last for epoch messages.
func NewSealerAt(k Key, counter, epoch uint64) (*Sealer, error) {
	c, err := newChain(k, epoch)
	if err != nil {
		return nil, err
	}
	c.counter = counter
	return &Sealer{c}, nil
}

// NewOpenerAt is the other half.
func NewOpenerAt(k Key, counter, epoch uint64) (*Opener, error) {
	s, err := NewSealerAt(k, counter, epoch)
	if err != nil {
		return nil, err
	}
	return &Opener{chain: s.chain}, nil
}

// EpochMessages is how long a key lasts.
const EpochMessages = epochMessages
