package relay

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.uber.org/zap"
)

// errLost ends the work of an instance whose lease is gone.
var errLost = errors.New("the lease is gone")

// lead relays from the term's place until ctx ends (nil), the lease is lost (errLost), or it halts and is to exit (*Halt).
func (r *Relay) lead(ctx context.Context, t term) error {
	r.takeOffice(t)
	keeping, stop := context.WithCancel(context.WithoutCancel(ctx))
	var group sync.WaitGroup
	group.Go(func() { r.keepLease(keeping, t.tenure) })
	defer group.Wait()
	defer stop()

	err := r.serve(ctx, t)
	if errors.Is(err, errLost) {
		r.leaveOffice(t)
		signal(r.opening) // stay warm
		return err
	}
	stop() // no renewal may follow the release
	group.Wait()
	r.release(ctx, t)
	return err
}

func (r *Relay) takeOffice(t term) {
	r.mu.Lock()
	r.tenure, r.lease, r.last = t.tenure, t.lease, savedPlace{Place: t.from}
	r.idle = standing{state: Standby} // when the lease was handed over
	r.terms++
	r.mu.Unlock()
	r.log.Info("leading", zap.Uint64("epoch", t.lease.Epoch), zap.String("file", t.from.File), zap.Uint64("pos", t.from.Pos),
		zap.String("gtid_set", t.from.GTIDSet), zap.Uint64("skip_rows", t.from.SkipRows), zap.Bool("paused", t.lease.Paused))
}

// leaveOffice says why the lease is gone. Who does not know of another leader is no standby that is ready.
func (r *Relay) leaveOffice(t term) {
	why := t.tenure.cause()
	r.log.Warn("the lease is gone, standing by", zap.Uint64("epoch", t.lease.Epoch), zap.Error(why))
	r.mu.Lock()
	defer r.mu.Unlock()
	if !errors.Is(why, ErrFenced) {
		r.idle.reason = SourceDown
	}
}

// serve relays, halts and moves for as long as this instance leads.
func (r *Relay) serve(ctx context.Context, t term) error {
	from, halt := t.from, t.halt
	for {
		var err error
		if halt == nil {
			err = r.relayFrom(ctx, t.tenure, from)
		} else {
			r.locked(func(c *Core) { c.OnHalt(halt) })
			err = halt
		}
		if errors.As(err, &halt) {
			r.log.Error("halted", zap.String("reason", string(halt.Reason)), zap.Error(halt.Err))
			if r.cfg.ExitOnHalt {
				return halt
			}
			err = r.stayHalted(ctx, t.tenure)
		}
		moved, ok := errors.AsType[*moved](err)
		if !ok {
			return err
		}
		if r.begin(ctx, t.tenure, moved) {
			halt = nil
		}
		from = r.checkpointed()
		signal(r.opening)
	}
}

func (r *Relay) checkpointed() Position {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last.Place
}

// stayHalted waits for a move, so that Status can tell why meanwhile. The lease is kept: another instance would halt, too.
func (r *Relay) stayHalted(ctx context.Context, tenure *Tenure) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tenure.lost:
			return errLost
		case m := <-r.moves:
			return &moved{m}
		case session := <-r.sessions: // asked for before the halt
			r.onSession(session)
		case o, open := <-r.outcomes:
			if !open {
				r.onSessionLost()
				continue
			}
			r.locked(func(c *Core) { c.OnOutcome(o, func(*Row) {}) })
		}
	}
}

// relayFrom relays from one place: it runs the goroutines that feed the loop, and takes them down in order.
func (r *Relay) relayFrom(ctx context.Context, tenure *Tenure, from Position) error {
	r.mu.Lock()
	r.core = r.core.Anew(r.cfg)
	r.core.OnLeading()
	r.core.OnPause(r.lease.Paused)
	r.mu.Unlock()
	r.source.Begin(from)

	working, stop := context.WithCancel(context.WithoutCancel(ctx)) // outlives ctx: the drain needs them
	reading, stopReading := context.WithCancel(working)
	l := newLoop(r, tenure, stopReading)
	var group sync.WaitGroup
	group.Go(func() { l.readSource(reading) })
	group.Go(func() { l.saveCheckpoints(working) })
	group.Go(func() { l.fillQuarantine(working) })
	err := l.run(ctx)
	stop()
	group.Wait()
	return err
}

// keepLease renews the lease until ctx ends, and declares it lost when that cannot be done in time.
func (r *Relay) keepLease(ctx context.Context, t *Tenure) {
	pause := t.ttl / 5
	for wait(ctx, pause) {
		asked := r.clock()
		bounded, cancel := context.WithDeadline(ctx, t.Until())
		err := r.store.Renew(bounded, t.epoch)
		cancel()
		var halt *Halt
		pause = t.ttl / 5
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, ErrFenced), errors.As(err, &halt), !t.Holds(r.clock()):
			if err == nil {
				err = context.DeadlineExceeded // it was answered, and too late
			}
			t.lose(err)
			return
		case err == nil:
			t.Renewed(asked)
		default:
			r.log.Warn("the lease was not renewed, trying again", zap.Error(err))
			pause = min(t.ttl/20, max(0, t.Until().Sub(r.clock())))
		}
	}
}

// release hands the lease over, so that a standby need not wait for its end.
func (r *Relay) release(ctx context.Context, t term) {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), min(r.cfg.ShutdownTimeout, 5*time.Second))
	defer cancel()
	if err := r.store.Release(bounded, t.lease.Epoch); err != nil && !errors.Is(err, ErrFenced) {
		r.log.Warn("the lease was not handed over, a standby waits for its end", zap.Error(err))
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tenure = nil
}
