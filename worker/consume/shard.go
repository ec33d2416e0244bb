package consume

import (
	"context"
	"errors"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"
)

// shard handles the messages of its aggregates one after the other.
type shard struct {
	s     *session
	w     *Worker
	in    chan amqp.Delivery
	gaps  *gaps
	lines *lines
	left  []amqp.Delivery // not settled when the shard ended; read after that
}

// run handles messages until the session stops or is lost. What it has in hand at that moment is finished.
func (sh *shard) run(ctx context.Context) {
	defer sh.leave()
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for !sh.s.stop.isSet() {
		var overdue <-chan time.Time
		if oldest, some := sh.oldest(); some {
			timer.Reset(time.Until(oldest.Add(sh.w.cfg.GapWait)))
			overdue = timer.C
		}
		select {
		case <-sh.s.stop.done:
		case d := <-sh.in:
			sh.takeAll(ctx, sh.waiting(d))
		case <-overdue:
			sh.sendOverdue(ctx)
		}
	}
}

// leave collects what was not begun and what waits.
func (sh *shard) leave() {
	for m := sh.gaps.takeAny(); m != nil; m = sh.gaps.takeAny() {
		sh.left = append(sh.left, m.delivery)
	}
	for key := range sh.lines.byKey {
		for m := sh.lines.take(key); m != nil; m = sh.lines.take(key) {
			sh.left = append(sh.left, m.delivery)
		}
	}
}

// waits tells whether events of the aggregate wait in memory, so that what comes now has to be handled on its own.
func (sh *shard) waits(key string) bool { return sh.gaps.missing(key) != 0 || sh.lines.some(key) }

// oldest is the time since when the one that has waited longest waits; false when none waits.
func (sh *shard) oldest() (oldest time.Time, some bool) {
	oldest, some = sh.gaps.oldest()
	if since, _, other := sh.lines.oldest(); other && (!some || since.Before(oldest)) {
		return since, true
	}
	return oldest, some
}

// handle handles one message on its own.
func (sh *shard) handle(ctx context.Context, m *message) {
	if sh.lines.some(m.key()) && m.isNew && !m.dropped {
		sh.standInLine(ctx, m)
		return
	}
	if missing := sh.gaps.missing(m.key()); missing != 0 && m.event.AggregateVersion > missing && !m.dropped {
		sh.wait(ctx, m, missing) // behind others that wait: no need to ask the database
		return
	}
	if sh.settle(ctx, m) {
		sh.follow(ctx, m.key())
	}
}

// follow tries an aggregate's waiting events again, in the order of their versions, or in that in which they came, after the one
// before them was applied, or died: then they go after it.
func (sh *shard) follow(ctx context.Context, key string) {
	for !sh.s.stop.isSet() {
		next := sh.gaps.takeFirst(key)
		if next == nil {
			next = sh.lines.take(key)
		}
		if next == nil || !sh.settle(ctx, next) {
			return
		}
	}
}

// settle tries the message and does what follows from the outcome. It tells whether the aggregate's next one is to be tried:
// the message is applied, or passed, or held by a block that holds the next one too.
func (sh *shard) settle(ctx context.Context, m *message) bool {
	switch v := sh.tryUntilClear(ctx, m); v.kind {
	case applied:
		sh.s.finish(m.delivery, outcomeApplied)
		return true
	case duplicate:
		sh.s.finish(m.delivery, outcomeDuplicate)
		return true
	case dropped:
		sh.w.log.Warn("passed over an event that was dropped", fieldsOf(m)...)
		sh.s.finish(m.delivery, outcomeDropped)
		return true
	case gap:
		sh.wait(ctx, m, v.missing)
	case failed:
		sh.again(ctx, m, v.problem, awaited{})
	case behind:
		m.behind = v.by
		if m.isNew {
			sh.standInLine(ctx, m)
		} else {
			sh.again(ctx, m, v.problem, awaited{event: v.by})
		}
	case permanent:
		sh.bury(ctx, m.delivery, v.problem)
	case forgotten: // it blocks nothing: it was most likely applied, and those after it, too
		sh.sendDead(ctx, m.delivery, v.problem, m.attempts, "")
	case blocked: // it is a good event, and was not tried
		sh.die(ctx, m.delivery, v.problem, m.attempts, v.by)
		return true
	case stalled:
		sh.left = append(sh.left, m.delivery)
	}
	return false
}

// tryUntilClear tries the message until the outcome does not depend on the database's health. The shard waits meanwhile,
// so that order is kept, and no attempt is spent. It gives up, with stalled, only when the session ends.
func (sh *shard) tryUntilClear(ctx context.Context, m *message) verdict {
	pauses := newPauses(stallFirst, stallMost)
	for tries := 1; ; tries++ {
		began := time.Now()
		traced, span := sh.w.span(ctx, m)
		v := sh.w.try(traced, m, sh.w.handlers[m.event.Type])
		endSpan(span, v)
		sh.w.metrics.handle.Observe(time.Since(began).Seconds())
		if v.problem.code == codeTimeout && !sh.w.status.databaseUp.Load() {
			v = verdict{kind: stalled, err: errDatabaseSlow} // whose fault it was shows when the database answers again
		}
		switch {
		case v.kind == duplicate && m.unknown && m.dropped:
			v.kind = dropped
		case v.kind == duplicate && m.unknown:
			v.kind = applied
			fallthrough
		case v.kind == applied:
			sh.w.tellApplied(m)
		}
		if tries > 1 && v.kind != stalled {
			sh.w.status.stalled.Add(-1)
		}
		if v.kind != stalled {
			return v
		}

		m.unknown = m.unknown || errors.Is(v.err, errCommitUnknown)
		if tries == 1 {
			sh.w.status.stalled.Add(1)
		}
		if tries == 1 || tries%10 == 0 {
			sh.w.log.Warn("database does not take the effect, waiting", append(fieldsOf(m), reason(describe(v.err)), zap.Int("tries", tries))...)
		}
		pauses.MaxInterval = stallMost / 2
		if refusedByDatabase(v.err) {
			pauses.MaxInterval = refusedMost / 2
		}
		if !sleep(pauses.NextBackOff(), sh.s.stop.done) {
			sh.w.status.stalled.Add(-1)
			return v
		}
	}
}

// tellApplied notes that the message's effect has been committed.
func (w *Worker) tellApplied(m *message) {
	if m.event.CreatedAt.Unix() > 0 { // else its row did not tell
		w.metrics.endToEnd.Observe(max(0, time.Since(m.event.CreatedAt).Seconds()))
	}
	w.status.applied(time.Now())
}

// wait lets an event that came too early wait in memory, unacknowledged. When too many wait already, the last one of the
// aggregate goes to the retry queue at once: the event they wait for may stand behind them in the queue, out of reach
// while they use up the prefetch.
//
// Invariant: waiting events never use up the prefetch.
func (sh *shard) wait(ctx context.Context, m *message, missing uint64) {
	if m.since.IsZero() {
		m.since = time.Now()
	}
	sh.gaps.add(m, missing)
	if sh.gaps.count.Load() > int64(sh.w.cfg.Prefetch/2) {
		sh.again(ctx, sh.gaps.takeLast(m.key()), gapProblem(missing), awaited{version: missing})
	}
}

// standInLine lets an event wait in memory for one that is in a retry queue. When too many wait already, those of its aggregate
// all go to the retry queue.
func (sh *shard) standInLine(ctx context.Context, m *message) {
	sh.lines.add(m)
	if sh.lines.count.Load() > int64(sh.w.cfg.Prefetch/2) {
		sh.sendLine(ctx, m.key())
	}
}

// sendLine sends all of an aggregate that stand in line to the retry queue, one after the other.
//
// Invariant: the place of each in blocked_aggregates is its place in the line; so none stays in the line behind one that goes.
func (sh *shard) sendLine(ctx context.Context, key string) {
	behind := ""
	for m := sh.lines.take(key); m != nil; m = sh.lines.take(key) {
		if m.behind != "" {
			behind = m.behind
		}
		if behind == "" { // the one before it has failed since
			sh.settle(ctx, m)
			continue
		}
		sh.again(ctx, m, problem{code: codeBehind}, awaited{event: behind})
	}
}

// sendOverdue sends what has waited too long in memory to the retry queue.
func (sh *shard) sendOverdue(ctx context.Context) {
	than := time.Now().Add(-sh.w.cfg.GapWait)
	for m, missing := sh.gaps.takeOlder(than); m != nil; m, missing = sh.gaps.takeOlder(than) {
		sh.again(ctx, m, gapProblem(missing), awaited{version: missing})
	}
	for since, key, some := sh.lines.oldest(); some && !since.After(than); since, key, some = sh.lines.oldest() {
		sh.sendLine(ctx, key)
	}
}

func reason(code string) zap.Field { return zap.String("reason", code) }

func fieldsOf(m *message) []zap.Field {
	return []zap.Field{
		zap.String("event_id", m.event.ID),
		zap.String("type", m.event.Type),
		zap.String("aggregate_id", m.event.AggregateID),
		zap.Uint64("aggregate_version", m.event.AggregateVersion),
	}
}
