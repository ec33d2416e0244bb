package relay

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"
)

// term is what an instance begins to lead with.
type term struct {
	tenure *Tenure
	lease  Lease
	from   Position
	halt   *Halt // the place is garbled: lead, and send nothing
}

// standBy keeps a session open and looks at the lease until it can be taken; false when ctx ended first.
func (r *Relay) standBy(ctx context.Context) (term, bool) {
	r.mu.Lock()
	r.core, r.tenure, r.told = r.core.Anew(r.cfg), nil, false
	r.mu.Unlock()
	watch := NewWatch(r.cfg.Holder, r.cfg.LeaseTTL)
	trouble := newBackOff(2 * time.Second)
	look := time.NewTimer(0)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return term{}, false
		case session := <-r.sessions:
			r.onSession(session)
		case o, open := <-r.outcomes:
			if !open {
				r.onSessionLost()
				continue
			}
			r.locked(func(c *Core) { c.OnOutcome(o, func(*Row) {}) }) // an alarm: nothing is in flight
		case m := <-r.moves: // was asked for when this instance still led
			m.answer <- r.standbyError()
		case <-look.C:
			term, took, err := r.tryLead(ctx, watch)
			switch {
			case took:
				return term, true
			case err != nil && ctx.Err() == nil:
				look.Reset(trouble.NextBackOff())
			default:
				trouble.Reset()
				look.Reset(r.lookInterval())
			}
		}
	}
}

// lookInterval is the time between two looks at the lease: how much later than it could a standby takes over.
func (r *Relay) lookInterval() time.Duration {
	return min(r.cfg.LeaseTTL/10, 500*time.Millisecond)
}

// tryLead looks at the lease and takes it if it is free.
func (r *Relay) tryLead(ctx context.Context, watch *Watch) (t term, took bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, max(r.cfg.LeaseTTL, time.Second))
	defer cancel()
	lease, err := r.store.Look(ctx)
	if err != nil {
		r.onNoLease(err)
		return t, false, err
	}
	free := watch.Saw(lease, r.clock())
	r.mu.Lock()
	r.lease = lease
	if !free { // while it is, what kept us from taking it still does
		r.idle = standing{state: Standby}
	}
	r.mu.Unlock()
	if !free {
		return t, false, nil
	}

	asked := r.clock()
	lease, from, err := r.store.Acquire(ctx, lease)
	var halt *Halt
	switch {
	case errors.As(err, &halt):
	case errors.Is(err, ErrFenced):
		return t, false, nil // another was quicker
	case err != nil:
		r.onNoLease(err)
		return t, false, err
	}
	lease.TTL = r.cfg.LeaseTTL
	return term{tenure: NewTenure(lease, asked), lease: lease, from: from, halt: halt}, true, nil
}

// onNoLease says why the lease cannot be seen or taken.
func (r *Relay) onNoLease(err error) {
	now := standing{state: Standby, reason: SourceDown}
	var halt *Halt
	if errors.As(err, &halt) {
		now = standing{state: Halted, reason: halt.Reason, detail: halt.Err.Error()}
	}
	r.mu.Lock()
	was, told := r.idle, r.told
	if was.state == Starting && halt == nil {
		now.state = Starting
	}
	r.idle, r.told = now, true
	r.mu.Unlock()
	switch {
	case was == now && told:
	case halt != nil:
		r.log.Error("halted", zap.String("reason", string(halt.Reason)), zap.Error(halt.Err))
	default:
		r.log.Warn("the lease is out of reach, trying again", zap.Error(err))
	}
}
