package proto

import "context"

// A clientV4 is a [Client] that speaks version 4.
type clientV4 struct {
	cfg ClientConfig
	to  destinationV4
}

func newClientV4(cfg ClientConfig, to destinationV4) *clientV4 { return &clientV4{cfg: cfg, to: to} }

func (c *clientV4) send(context.Context, Offer, Source, Watcher) (Receipt, error) {
	panic("not built")
}
func (c *clientV4) rotate(context.Context) error { panic("not built") }
func (c *clientV4) close() error                 { return nil }

// ServerPin returns the pin of the server at an address, HOST:PORT, as whoever
// answers there shows it: nothing else is known of it.
func ServerPin(ctx context.Context, address string) (Pin, error) { panic("not built") }
