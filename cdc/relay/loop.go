package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
)

// loop is the one goroutine that owns the core while the relay goes on from one place. Nothing in it blocks: the source fills
// a queue, sessions have goroutines of their own, saves go to the saver.
type loop struct {
	*Relay
	tenure      *Tenure
	stopReading context.CancelFunc

	rows        *queue          // from the source, bounded
	breaks      chan error      // why a stream ended
	saves       chan save       // to the saver; room for one
	saved       chan saveResult // from the saver
	poison      chan setAside   // to the quarantine; room for the window
	quarantined chan uint64     // from the quarantine

	batch    []Row  // taken from the queue and not yet in the window: batch[taken:]
	taken    int    //
	savedAt  uint64 // watermark of the last save
	saving   bool   // a save is due, or the saver is at work
	failed   bool   // the last save was not written
	saveAt   *time.Timer
	idleAt   *time.Timer
	retryAt  *time.Timer
	retrying bool
	passing  uint64 // transactions passed at the last save
	end      error  // why the loop ends, other than a halt
}

func newLoop(r *Relay, tenure *Tenure, stopReading context.CancelFunc) *loop {
	return &loop{
		Relay: r, tenure: tenure, stopReading: stopReading,
		rows:   newQueue(queueRows, queueBytes),
		breaks: make(chan error),
		saves:  make(chan save, 1), saved: make(chan saveResult, 1),
		poison: make(chan setAside, r.cfg.Window+1), quarantined: make(chan uint64, r.cfg.Window+1),
	}
}

func (l *loop) run(ctx context.Context) error {
	l.saveAt, l.idleAt, l.retryAt = stoppedTimer(), time.NewTimer(l.cfg.CheckpointInterval), stoppedTimer()
	defer l.saveAt.Stop()
	defer l.idleAt.Stop()
	defer l.retryAt.Stop()

	for ctx.Err() == nil && l.end == nil && l.halted() == nil {
		l.fill()
		l.send()
		l.armRetry()
		l.step(ctx.Done())
	}
	move, _ := errors.AsType[*moved](l.end)
	l.drain(context.WithoutCancel(ctx))
	end := l.end
	if halt := l.halted(); halt != nil && !l.lost() {
		end = halt
	}
	if move != nil && !errors.Is(end, move) { // something else came in between
		move.answer <- l.unmoved(end)
	}
	return end
}

// unmoved is the answer to a move that is not done.
func (l *loop) unmoved(end error) error {
	if halt, ok := errors.AsType[*Halt](end); ok {
		return fmt.Errorf("move: the relay has halted before it could (%s): look why, then ask again", halt.Reason)
	}
	return l.standbyError()
}

// step waits for one thing to happen and takes it in.
func (l *loop) step(done <-chan struct{}) {
	var ready <-chan struct{}
	if l.taken == len(l.batch) && l.room() {
		ready = l.rows.ready
	}
	var moves <-chan move
	if l.end == nil {
		moves = l.moves
	}
	select {
	case <-done:
	case <-l.tenure.lost:
		l.end = errLost
	case m := <-moves:
		l.end = &moved{m}
	case <-l.nudge:
	case <-ready:
		l.batch, l.taken = l.rows.take(l.batch), 0
	case o, open := <-l.outcomes:
		l.onOutcome(o, open)
	case session := <-l.sessions:
		l.onSession(session)
	case seq := <-l.quarantined:
		l.locked(func(c *Core) { c.OnQuarantined(seq) })
		l.armSave()
	case err := <-l.breaks:
		l.onBreak(err)
	case result := <-l.saved:
		l.onSaved(result)
	case <-l.saveAt.C:
		l.save()
	case <-l.idleAt.C:
		l.idleAt.Reset(l.saveIdle())
	case <-l.retryAt.C:
		l.retrying = false
		l.locked((*Core).OnRetry)
	}
}

func (l *loop) room() (room bool) {
	l.locked(func(c *Core) { room = c.Room() })
	return room
}

func (l *loop) halted() (halt *Halt) {
	l.locked(func(c *Core) { halt = c.Halted() })
	return halt
}

// fill moves rows from the batch into the window while there is room.
func (l *loop) fill() {
	l.locked(func(c *Core) {
		for ; l.taken < len(l.batch) && c.Room(); l.taken++ {
			c.OnRow(l.batch[l.taken])
		}
	})
}

// send hands all that may be sent to the session.
//
// Invariant: nothing is handed over when the tenure is over, by our own clock at this moment: this process may have been
// frozen since it last looked.
func (l *loop) send() {
	if l.session == nil {
		return
	}
	if !l.tenure.Holds(l.clock()) {
		l.tenure.lose(context.DeadlineExceeded)
		l.end = errLost
		return
	}
	var rows []Row
	l.locked(func(c *Core) { rows = c.Next(nil) })
	if len(rows) == 0 {
		return
	}
	if l.cfg.Tracer != nil {
		now := l.clock()
		for i := range rows {
			l.cfg.Tracer.Sent(&rows[i], now)
		}
	}
	l.session.Publish(rows)
}

// armRetry starts the wait before what is held back is sent again.
func (l *loop) armRetry() {
	l.mu.Lock()
	attempt, due := l.core.Retry()
	_, reason := l.core.State()
	l.mu.Unlock()
	if !due || l.retrying {
		return
	}
	delay := l.cfg.RetryMax
	if attempt < 16 {
		delay = min(delay, l.cfg.RetryInterval<<(attempt-1))
	}
	l.log.Warn("held back, trying again", zap.String("reason", string(reason)), zap.Int("attempt", attempt), zap.Duration("delay", delay))
	l.retrying = true
	l.retryAt.Reset(delay)
}

func (l *loop) onOutcome(o Outcome, open bool) {
	if !open {
		l.onSessionLost()
		return
	}
	now := l.clock()
	l.locked(func(c *Core) {
		c.OnOutcome(o, func(row *Row) {
			if l.cfg.Observe != nil {
				l.cfg.Observe(row, now)
			}
			if l.cfg.Tracer != nil {
				l.cfg.Tracer.Confirmed(row, now)
			}
		})
	})
	switch o.Kind {
	case Confirmed:
		l.armSave()
	case Poison:
		l.onPoison(o)
	case Blocked:
		l.log.Warn("the broker raised an alarm and takes no messages")
	case Unblocked:
		l.log.Info("the broker takes messages again")
	case Returned, Refused: // the core holds the row back, and armRetry says so
	}
}

// onPoison gives the row to the quarantine, if there is one: the core has set it aside, or halted.
func (l *loop) onPoison(o Outcome) {
	if l.cfg.Quarantine == nil {
		return
	}
	var row Row
	l.locked(func(c *Core) { row = c.Row(o.Seq) })
	l.log.Warn("an event cannot be a message and goes to the quarantine", zap.String("event_id", row.Event.ID),
		zap.String("position", row.Position), zap.Error(o.Err))
	if l.cfg.Tracer != nil {
		l.cfg.Tracer.Dropped(&row)
	}
	l.poison <- setAside{row: row, cause: o.Err} // never blocks: it has room for the window
}

func (l *loop) onBreak(err error) {
	if halt := (*Halt)(nil); errors.As(err, &halt) {
		l.locked(func(c *Core) { c.OnHalt(halt) })
		return
	}
	l.log.Warn("the binlog stream broke, connecting again", zap.Error(err))
	l.locked(func(c *Core) { c.counts.SourceReconnects++ })
}

// armSave makes a save due at the latest one interval from now.
func (l *loop) armSave() {
	if !l.saving && l.watermark() > l.savedAt {
		l.saving = true // until its result is in
		l.saveAt.Reset(l.cfg.CheckpointInterval)
	}
}

func (l *loop) watermark() (seq uint64) {
	l.locked(func(c *Core) { seq = c.Watermark() })
	return seq
}

// save gives the saver the place behind the watermark.
func (l *loop) save() {
	l.saving = false
	if place, passed, ok := l.source.Confirmed(l.watermark()); ok {
		l.submit(place, passed) // the loop alone moves the watermark: it is still the same
	}
}

func (l *loop) submit(place Position, passed uint64) {
	s := save{place: place, passed: passed}
	l.locked(func(c *Core) { s.watermark, s.eventID = c.Watermark(), c.LastEvent() })
	if s.eventID == "" {
		s.eventID = l.last.EventID
	}
	l.saving = true // until its result is in
	l.saves <- s
}

// saveIdle saves the place when only other transactions went by, so that a quiet outbox does not fall behind the purge of
// a busy server's binlog, and tells when to look again: soon, as long as the source has no place to begin at yet.
func (l *loop) saveIdle() time.Duration {
	place, passed, ok := l.source.Confirmed(l.watermark())
	if !ok {
		return l.cfg.CheckpointInterval
	}
	if !l.saving && passed != l.passing {
		l.submit(place, passed)
	}
	return l.cfg.IdleCheckpointInterval
}

func (l *loop) onSaved(result saveResult) {
	l.saving, l.failed = false, result.err != nil
	switch {
	case errors.Is(result.err, ErrFenced):
		l.tenure.lose(result.err)
		l.end = errLost
		return
	case result.err != nil:
		l.log.Warn("the checkpoint was not saved, trying again", zap.Error(result.err))
		l.idleAt.Reset(l.cfg.CheckpointInterval) // it may have been one that no confirm will make due again
	default:
		l.savedAt, l.passing = result.watermark, result.passed
		l.mu.Lock()
		l.last = savedPlace{Place: result.place, EventID: result.eventID, At: result.at}
		l.mu.Unlock()
	}
	l.armSave()
}

// drain stops reading, waits for what is under way and saves the place behind it, for at most the shutdown timeout. With the
// lease gone there is nothing to wait for: the session is cut.
func (l *loop) drain(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.ShutdownTimeout)
	defer cancel()
	l.stopReading()
	l.locked((*Core).OnDrain)

	for ctx.Err() == nil && !l.lost() && !l.idle() {
		l.step(ctx.Done())
	}
	for ctx.Err() == nil && !l.lost() && l.saveNow() {
		l.step(ctx.Done())
	}
	if l.lost() {
		cancel()
	}
	l.closeSession(ctx)
	if l.cfg.Tracer != nil {
		l.cfg.Tracer.Lost() // rows are numbered anew from the next place
	}
}

func (l *loop) lost() bool { return errors.Is(l.end, errLost) }

func (l *loop) idle() (idle bool) {
	l.locked(func(c *Core) { idle = c.Idle() })
	return idle
}

// saveNow makes a due save happen at once (after a failure: when its wait is over), and tells whether one is under way.
func (l *loop) saveNow() bool {
	if due := !l.saving || !l.failed && l.saveAt.Stop(); due && l.watermark() > l.savedAt {
		l.save()
	}
	return l.saving
}

func stoppedTimer() *time.Timer {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	return timer
}
