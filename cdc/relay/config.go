package relay

import "time"

// Config of a Relay.
type Config struct {
	// Holder names this instance in the lease. No two instances, of any time, may have the same. Required.
	Holder string
	// LeaseTTL is how long the others wait for a sign of life from the one that leads. Defaults to DefaultLeaseTTL.
	LeaseTTL time.Duration
	// Quarantine keeps events that cannot be messages. Without one the relay halts at such an event.
	Quarantine Quarantine
	// Window is how many rows may be unconfirmed. Defaults to DefaultWindow.
	Window int
	// WindowBytes is how many bytes of payload may be unconfirmed. Defaults to DefaultWindowBytes.
	WindowBytes int
	// StrictOrder keeps at most one event per aggregate in flight, so that the first deliveries follow commit order per
	// aggregate even after the broker has returned or refused one.
	StrictOrder bool
	// ParkUnroutable sends what reaches no queue to the unrouted queue, confirmed, and goes on, instead of holding it.
	ParkUnroutable bool
	// CheckpointInterval is the least time between two saves. Defaults to DefaultCheckpointInterval.
	CheckpointInterval time.Duration
	// IdleCheckpointInterval is the least time between two saves when only other tables' transactions went by.
	// Defaults to DefaultIdleCheckpointInterval.
	IdleCheckpointInterval time.Duration
	// RetryInterval is the first wait before rows that reached no queue are sent again; it doubles up to RetryMax.
	// Defaults to DefaultRetryInterval and DefaultRetryMax.
	RetryInterval, RetryMax time.Duration
	// ShutdownTimeout bounds the drain of a stop. Defaults to DefaultShutdownTimeout.
	ShutdownTimeout time.Duration
	// ExitOnHalt makes Run return the *Halt at once.
	ExitOnHalt bool
	// Tracer, if set, follows each row on its way.
	Tracer Tracer
	// Observe, if set, is told of each confirmed row, on the relay's own goroutine: it must be quick.
	Observe func(row *Row, confirmedAt time.Time)
}

// Defaults of Config.
const (
	DefaultWindow                 = 1000
	DefaultWindowBytes            = 16 << 20
	DefaultCheckpointInterval     = 200 * time.Millisecond
	DefaultIdleCheckpointInterval = 10 * time.Second
	DefaultRetryInterval          = 250 * time.Millisecond
	DefaultRetryMax               = 5 * time.Second
	DefaultShutdownTimeout        = 10 * time.Second
	DefaultLeaseTTL               = 5 * time.Second
)

func (c Config) withDefaults() Config {
	if c.Window <= 0 {
		c.Window = DefaultWindow
	}
	if c.WindowBytes <= 0 {
		c.WindowBytes = DefaultWindowBytes
	}
	for _, d := range []struct {
		value    *time.Duration
		fallback time.Duration
	}{
		{&c.CheckpointInterval, DefaultCheckpointInterval},
		{&c.IdleCheckpointInterval, DefaultIdleCheckpointInterval},
		{&c.RetryInterval, DefaultRetryInterval},
		{&c.RetryMax, DefaultRetryMax},
		{&c.ShutdownTimeout, DefaultShutdownTimeout},
		{&c.LeaseTTL, DefaultLeaseTTL},
	} {
		if *d.value <= 0 {
			*d.value = d.fallback
		}
	}
	return c
}
