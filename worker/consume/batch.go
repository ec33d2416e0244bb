package consume

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.opentelemetry.io/otel/trace"

	"tailbox/worker/inbox"
)

// errBlocked ends a batch with an event whose aggregate is blocked: each event then finds out for itself.
var errBlocked = errors.New("an aggregate is blocked")

// waiting is the message and those that wait behind it, at most a batch. None is waited for, so that a message which comes
// alone is handled at once.
func (sh *shard) waiting(first amqp.Delivery) []amqp.Delivery {
	all := []amqp.Delivery{first}
	for len(all) < sh.w.cfg.Batch {
		select {
		case d := <-sh.in:
			all = append(all, d)
		default:
			return all
		}
	}
	return all
}

// takeAll handles messages that have just arrived, in their order. Those that nothing is known against share a transaction.
func (sh *shard) takeAll(ctx context.Context, deliveries []amqp.Delivery) {
	var batch []*message
	for at, d := range deliveries {
		if sh.s.stop.isSet() {
			sh.leaveUnbegun(batch, deliveries[at:])
			return
		}
		m, unreadable := sh.receive(d)
		if unreadable == nil && !sh.waits(m.key()) && !m.dropped {
			batch = append(batch, m)
			continue
		}
		sh.apply(ctx, batch)
		batch = nil
		if unreadable != nil {
			sh.sendLine(ctx, aggregateKey(d)) // they came before it
			sh.bury(ctx, d, *unreadable)
		} else {
			sh.handle(ctx, m)
		}
	}
	sh.apply(ctx, batch)
}

// receive reads a message, or tells why it can never be applied.
func (sh *shard) receive(d amqp.Delivery) (*message, *problem) {
	m, unreadable := read(d)
	if unreadable != nil {
		return nil, unreadable
	}
	sh.w.log.Info("handling", fieldsOf(m)...)
	if sh.w.handlers[m.event.Type] == nil && !m.dropped {
		return nil, &problem{code: codeUnknownType}
	}
	return m, nil
}

// apply applies messages with one transaction or, when that fails, with one for each, so that a message which cannot be
// applied costs the others nothing but time.
func (sh *shard) apply(ctx context.Context, batch []*message) {
	if len(batch) > 1 && sh.applyTogether(ctx, batch) {
		return
	}
	for at, m := range batch {
		if sh.s.stop.isSet() {
			sh.leaveUnbegun(batch[at:], nil)
			return
		}
		sh.handle(ctx, m)
	}
}

// leaveUnbegun notes what the shard has in hand and will not begin any more.
func (sh *shard) leaveUnbegun(batch []*message, deliveries []amqp.Delivery) {
	for _, m := range batch {
		sh.left = append(sh.left, m.delivery)
	}
	sh.left = append(sh.left, deliveries...)
}

// applyTogether tells whether the messages were applied, or found applied, by one transaction. If not, nothing is settled.
func (sh *shard) applyTogether(ctx context.Context, batch []*message) bool {
	began := time.Now()
	duplicates, err := sh.w.tryTogether(ctx, batch)
	took := time.Since(began).Seconds()
	for i, m := range batch {
		if errors.Is(err, errCommitUnknown) {
			m.unknown = !duplicates[i]
		}
		sh.w.metrics.handle.Observe(took)
	}
	if err != nil {
		return false
	}

	tags := make([]uint64, len(batch))
	for i, m := range batch {
		tags[i] = m.delivery.DeliveryTag
		outcome := outcomeDuplicate
		if !duplicates[i] {
			outcome = outcomeApplied
			sh.w.tellApplied(m)
		}
		sh.w.metrics.count(outcome)
	}
	sh.s.acknowledge(tags...)
	return true
}

// tryTogether applies all messages in one transaction, or none, and tells which of them were applied before.
//
// Invariant: as for try; a batch of which any message is neither applied nor a duplicate leaves nothing in the database.
func (w *Worker) tryTogether(ctx context.Context, batch []*message) (duplicates []bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.HandleTimeout)
	defer cancel()
	tx, err := w.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // nothing to do after a commit

	duplicates, err = w.recordAll(ctx, tx, batch)
	if err != nil {
		return nil, err
	}
	if blocked, err := w.anyBlocked(ctx, tx, batch); err != nil || blocked { // behind the inbox, see storeBlock
		return nil, errors.Join(errBlocked, err)
	}
	if old, err := w.anyForgotten(ctx, tx, batch, duplicates); err != nil || old {
		return nil, errors.Join(errForgotten, err)
	}
	spans := make([]trace.Span, len(batch))
	for i, m := range batch {
		if duplicates[i] {
			continue
		}
		var traced context.Context
		traced, spans[i] = w.span(ctx, m)
		if err := call(traced, w.handlers[m.event.Type], tx, m); err != nil {
			if judge(ctx, err).kind != duplicate {
				return nil, err // each has a span of its own again when it is tried alone
			}
			duplicates[i] = true
		}
	}
	if err := tx.Commit(); err != nil {
		return duplicates, fmt.Errorf("commit: %w: %w", errCommitUnknown, err)
	}
	for _, span := range spans {
		if span != nil {
			endSpan(span, verdict{kind: applied})
		}
	}
	return duplicates, nil
}

// recordAll writes the inbox rows of a batch and tells which messages have had theirs before.
func (w *Worker) recordAll(ctx context.Context, tx *sql.Tx, batch []*message) (seen []bool, err error) {
	entries := make([]inbox.Entry, len(batch))
	for i, m := range batch {
		entries[i] = inbox.Entry{MessageID: m.event.ID, Hash: m.hash}
	}
	seen = make([]bool, len(batch))
	recorded, err := inbox.RecordNew(ctx, tx, w.cfg.Name, entries)
	if err != nil || recorded {
		return seen, err
	}
	for i, e := range entries {
		if seen[i], err = inbox.Record(ctx, tx, w.cfg.Name, e.MessageID, e.Hash); err != nil {
			return nil, err
		}
	}
	return seen, nil
}
