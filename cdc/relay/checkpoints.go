package relay

import (
	"context"
	"errors"
)

// ErrFenced is returned by Renew, Save and Pause when another instance of the relay took over, and by Acquire when it was
// quicker. Nothing was written; the instance steps down, or stays where it is.
var ErrFenced = errors.New("another instance of this relay took over")

// Checkpoints keeps the place of one relay, durably and fenced: it accepts nothing from an epoch that is not the newest.
type Checkpoints interface {
	// Save stores the place durably, or returns ErrFenced when the epoch is not the newest. It is idempotent. The zero
	// Position makes the next one to begin choose its place by START.
	Save(ctx context.Context, epoch uint64, place Position, eventID string) error
	// Pause stores durably whether the relay is paused, fenced like Save.
	Pause(ctx context.Context, epoch uint64, paused bool) error
}

// Leases keeps the lease of one relay, in the same row as its checkpoint.
type Leases interface {
	// Look reads the lease and makes the row if there is none yet. It returns a *Halt when a row that was there is gone.
	Look(ctx context.Context) (Lease, error)
	// Acquire makes the caller the holder under a new epoch, and returns the lease and the place that was saved last, the
	// zero Position if none was. It returns ErrFenced when the row is not as seen any more. With a *Halt (the place is
	// garbled) the lease is the caller's all the same.
	Acquire(ctx context.Context, seen Lease) (Lease, Position, error)
	// Renew shows the others that the holder lives, or returns ErrFenced.
	Renew(ctx context.Context, epoch uint64) error
	// Release hands the lease over: whoever looks next may have it at once.
	Release(ctx context.Context, epoch uint64) error
}

// Store is the row that all instances of a relay share: lease and checkpoint.
type Store interface {
	Leases
	Checkpoints
}

// Quarantine keeps events that cannot be messages, so that those behind them can go on.
type Quarantine interface {
	// Add stores the row durably with why it cannot be sent, or returns ErrFenced when the epoch is not the newest: what the
	// leader retried or dropped must not come back. It is idempotent for each event.
	Add(ctx context.Context, epoch uint64, row Row, cause error) error
}
