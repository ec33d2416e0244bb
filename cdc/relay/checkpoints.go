package relay

import (
	"context"
	"errors"
)

// ErrFenced is returned by Checkpoints.Save, and by Relay.Run, when another relay of the same name took over. Nothing was
// written; the process steps down.
var ErrFenced = errors.New("another relay of this name took over")

// Checkpoints keeps the place of one relay, durably and fenced: it accepts nothing from an epoch that is not the newest.
type Checkpoints interface {
	// Acquire makes the caller the only writer under a new epoch and returns the place that was saved last, the zero
	// Position if none was.
	Acquire(ctx context.Context) (epoch uint64, from Position, err error)
	// Save stores the place durably, or returns ErrFenced when the epoch is not the newest. It is idempotent.
	Save(ctx context.Context, epoch uint64, place Position, eventID string) error
}
