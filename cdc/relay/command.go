package relay

import (
	"context"
	"errors"
	"fmt"
)

// move asks the leader to go on from another place. The answer says when it has begun there.
type move struct {
	to     Position
	answer chan error
}

// moved ends a loop that is to go on from another place.
type moved struct{ move }

func (m *moved) Error() string { return "moved to another place" }

// Leading tells whether this instance leads, and under which epoch.
func (r *Relay) Leading() (epoch uint64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tenure == nil || !r.tenure.Holds(r.clock()) {
		return 0, false
	}
	return r.tenure.epoch, true
}

// Pause stops sending until Resume, in this process and in those that take over. On a standby it returns a *StandbyError.
func (r *Relay) Pause(ctx context.Context) error { return r.setPaused(ctx, true) }

// Resume ends a pause. On a standby it returns a *StandbyError.
func (r *Relay) Resume(ctx context.Context) error { return r.setPaused(ctx, false) }

func (r *Relay) setPaused(ctx context.Context, paused bool) error {
	epoch, ok := r.Leading()
	if !ok {
		return r.standbyError()
	}
	if err := r.store.Pause(ctx, epoch, paused); err != nil {
		if errors.Is(err, ErrFenced) {
			return r.standbyError()
		}
		return fmt.Errorf("store the pause: %w", err)
	}
	r.mu.Lock()
	if r.tenure != nil && r.tenure.epoch == epoch {
		r.lease.Paused = paused
		r.core.OnPause(paused)
	}
	r.mu.Unlock()
	signal(r.nudge)
	return nil
}

// Move makes the leader stop reading, wait for what is in flight, and go on from another place, which ends a halt, too. It
// returns when that place is saved. Events between the old place and the new are sent again, or skipped: whether that is
// right is for the caller to know. On a standby it returns a *StandbyError.
func (r *Relay) Move(ctx context.Context, to Position) error {
	if _, ok := r.Leading(); !ok {
		return r.standbyError()
	}
	m := move{to: to, answer: make(chan error, 1)}
	select {
	case r.moves <- m:
	case <-ctx.Done():
		return fmt.Errorf("move: %w", ctx.Err())
	}
	select {
	case err := <-m.answer:
		return err
	case <-ctx.Done():
		return fmt.Errorf("move: it goes on, and its end was not waited for: %w", ctx.Err())
	}
}

// begin saves the place to move to and answers; false when it was not saved: then the relay goes on where it was.
func (r *Relay) begin(ctx context.Context, tenure *Tenure, m *moved) bool {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.cfg.ShutdownTimeout)
	defer cancel()
	// What the relay knows of the table's rows does not change with its place.
	to, last := m.to, r.checkpointed()
	to.Late = max(to.Late, last.Late)
	if !to.Snapshot { // which sends what was passed over
		to.Unsent = last.Unsent
	}
	if err := r.store.Save(bounded, tenure.epoch, to, ""); err != nil {
		m.answer <- fmt.Errorf("save the new place: %w", err)
		return false
	}
	r.mu.Lock()
	r.last = savedPlace{Place: to, At: r.clock()}
	r.mu.Unlock()
	m.answer <- nil
	return true
}

func (r *Relay) standbyError() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lease.Holder == r.cfg.Holder {
		return &StandbyError{}
	}
	return &StandbyError{Leader: r.lease.Holder}
}
