package relay

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"
)

// save asks the saver for a checkpoint.
type save struct {
	watermark uint64
	passed    uint64
	place     Position
	eventID   string
}

type saveResult struct {
	save
	at  time.Time
	err error
}

// setAside asks the quarantine to take a row.
type setAside struct {
	row   Row
	cause error
}

// readSource streams for as long as it may, again and again, and reports each end.
func (l *loop) readSource(ctx context.Context) {
	retry := newBackOff(2 * time.Second)
	for ctx.Err() == nil {
		began, before := l.clock(), l.rows.delivered()
		err := l.source.Stream(ctx, func(row Row) error {
			if l.cfg.Tracer != nil {
				row.ReadAt = l.clock()
			}
			return l.rows.put(ctx, row)
		})
		if ctx.Err() != nil {
			return
		}
		if l.rows.delivered() > before || l.clock().Sub(began) > 30*time.Second {
			retry.Reset() // it worked for a while
		}
		select {
		case l.breaks <- err:
		case <-ctx.Done():
			return
		}
		if halt := (*Halt)(nil); errors.As(err, &halt) {
			return
		}
		wait(ctx, retry.NextBackOff())
	}
}

// saveCheckpoints writes one save at a time; each has its own deadline, so that a stuck database cannot hold the loop.
func (l *loop) saveCheckpoints(ctx context.Context) {
	for {
		select {
		case s := <-l.saves:
			bounded, cancel := context.WithTimeout(ctx, l.cfg.ShutdownTimeout)
			err := l.store.Save(bounded, l.tenure.epoch, s.place, s.eventID)
			cancel()
			l.saved <- saveResult{save: s, at: l.clock(), err: err}
		case <-ctx.Done():
			return
		}
	}
}

// fillQuarantine stores what is set aside, one row at a time, until it is stored.
func (l *loop) fillQuarantine(ctx context.Context) {
	for {
		select {
		case s := <-l.poison:
			retry := newBackOff(2 * time.Second)
			for {
				bounded, cancel := context.WithTimeout(ctx, l.cfg.ShutdownTimeout)
				err := l.cfg.Quarantine.Add(bounded, l.tenure.epoch, s.row, s.cause)
				cancel()
				if err == nil {
					break
				}
				if errors.Is(err, ErrFenced) {
					l.tenure.lose(err)
					return
				}
				l.locked((*Core).OnQuarantineError)
				l.log.Warn("the quarantine did not take an event, trying again", zap.String("event_id", s.row.Event.ID), zap.Error(err))
				if !wait(ctx, retry.NextBackOff()) {
					return
				}
			}
			l.quarantined <- s.row.Seq
		case <-ctx.Done():
			return
		}
	}
}
