package consume

import (
	"context"
	"errors"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"tailbox/schema"
	"tailbox/schema/topology"
)

// refusedFor is how long a session goes on with a queue that refuses a message: the broker allows a thousand deliveries of each.
const refusedFor = 10 * time.Minute

// behindMost is the longest that a message waits in a retry queue for another one's turn: what comes later waits for it, too.
const behindMost = 30 * time.Second

// again sends a message to the retry queue of its delay, from where it comes back to the end of the work queue, or to the
// dead-letter queue when it was tried often enough. An event that waits for something else than last time has got ahead,
// and is counted anew: a long queue in the wrong order takes many turns, and none of them is in vain.
func (sh *shard) again(ctx context.Context, m *message, why problem, waits awaited) {
	attempts := m.attempts + 1
	if waits != m.waitsFor {
		attempts = 1
	}
	if waits.event == "" && attempts >= sh.w.cfg.MaxAttempts { // who waits for another does not fail
		sh.toDead(ctx, m.delivery, why, attempts)
		return
	}
	if sh.w.holdsOthers(m, waits) && !sh.mayGo(ctx, m.delivery, false) {
		sh.follow(ctx, m.key())
		return
	}
	more := amqp.Table{HeaderAttempts: int64(attempts)}
	if waits.version != 0 {
		more[headerWaitsFor] = int64(waits.version)
	}
	if waits.event != "" {
		more[headerWaitsBehind] = waits.event
	}
	if m.acceptOld {
		more[HeaderAcceptOld] = true
	}
	delay := delayAfter(attempts)
	if waits.event != "" {
		delay = min(delay, behindMost)
	}
	if sh.handOver(ctx, m.delivery, sh.w.queue.RetryQueue(delay), more, outcomeRetried) {
		sh.w.log.Warn("sent to the retry queue", append(fieldsOf(m),
			reason(why.code), zap.String("detail", why.detail), zap.Int("attempts", attempts), zap.Duration("delay", delay))...)
	}
}

// holdsOthers tells whether later events of its aggregate have to be kept behind a message in a retry queue. Who answers Gap
// does that for itself, and handlers that check versions do it for all events that have one.
func (w *Worker) holdsOthers(m *message, waits awaited) bool {
	checked := w.cfg.ChecksVersions && m.event.AggregateVersion != 0
	return waits.event != "" || waits.version == 0 && !checked
}

// bury sends a message that will never be applied as it is to the dead-letter queue.
func (sh *shard) bury(ctx context.Context, d amqp.Delivery, why problem) {
	sh.toDead(ctx, d, why, attemptsOf(d)+1)
}

// toDead is die, and after the event those that wait for it in memory: they would wait in vain.
func (sh *shard) toDead(ctx context.Context, d amqp.Delivery, why problem, attempts int) {
	sh.die(ctx, d, why, attempts, "")
	sh.follow(ctx, aggregateKey(d))
}

// die blocks the event's aggregate, then sends the event to the dead-letter queue; with by, the message id of the one that it
// only follows.
func (sh *shard) die(ctx context.Context, d amqp.Delivery, why problem, attempts int, by string) {
	if sh.mayGo(ctx, d, true) {
		sh.sendDead(ctx, d, why, attempts, by)
	}
}

// mayGo blocks the event's aggregate and tells whether the event is to go to the other queue. If not, it is settled, or left to
// the broker because the session ends.
func (sh *shard) mayGo(ctx context.Context, d amqp.Delivery, dead bool) bool {
	switch sh.block(ctx, d, dead) {
	case stalled:
		sh.left = append(sh.left, d)
		return false
	case duplicate: // another process has applied it meanwhile
		sh.s.finish(d, outcomeDuplicate)
		return false
	default:
		return true
	}
}

func (sh *shard) sendDead(ctx context.Context, d amqp.Delivery, why problem, attempts int, by string) {
	headers := amqp.Table{
		HeaderAttempts: int64(attempts),
		HeaderError:    why.String(),
		HeaderFailedAt: time.Now().UTC().Format(schema.TimeFormat),
	}
	if by != "" {
		headers[HeaderBlockedBy] = by
	}
	if sh.handOver(ctx, d, sh.w.queue.DeadQueue(), headers, outcomeDead) {
		sh.w.log.Warn("sent to the dead-letter queue", zap.String("event_id", d.MessageId), zap.String("type", d.Type),
			reason(why.code), zap.String("detail", why.detail), zap.Int("attempts", attempts))
	}
}

// handOver moves a message to another queue. As long as the queue refuses it, because it is full, the shard waits: another
// session would find it full too, and each costs the other aggregates' messages a delivery. One is begun at long intervals, for
// RabbitMQ 3.10 does not tell a channel that a limit was taken away. On any other failure the session ends at once and the
// broker delivers the message again.
//
// Invariant: a message is acknowledged here only after the broker confirmed that the other queue has it. A crash in
// between leaves it in both, and the inbox takes care of the second.
func (sh *shard) handOver(ctx context.Context, d amqp.Delivery, queue string, more amqp.Table, outcome string) bool {
	pauses := newPauses(stallFirst, stallMost)
	began := time.Now()
	for tries := 1; ; tries++ {
		err := sh.s.out.publish(ctx, queue, copyOf(d, more))
		if err == nil {
			sh.s.finish(d, outcome)
			return true
		}
		if !errors.Is(err, errRefused) || time.Since(began) > refusedFor {
			sh.s.fail(err)
			return false
		}
		if tries == 1 || tries%10 == 0 {
			sh.w.log.Warn("a queue refuses a message, waiting: it may be full", zap.String("queue", queue),
				zap.String("event_id", d.MessageId), zap.Int("tries", tries))
		}
		if !sleep(pauses.NextBackOff(), sh.s.stop.done) {
			sh.left = append(sh.left, d)
			return false
		}
	}
}

// delayAfter is how long a message waits after so many attempts: each time longer, the last delay again and again.
func delayAfter(attempts int) time.Duration {
	return topology.RetryDelays[min(attempts, len(topology.RetryDelays))-1]
}
