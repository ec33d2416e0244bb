package consume

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"tailbox/schema"
	"tailbox/worker/inbox"
)

// retriedWithin is how long an event that waits in a retry queue, or is redriven, is believed to come back: longer than any
// delay and any backlog. What waits for it then goes to the dead letters, where somebody will look.
const retriedWithin = 24 * time.Hour

// blockMost bounds the pauses between tries to store a block.
const blockMost = 10 * time.Second

// block is what the table blocked_aggregates has about a message: the events of its aggregate that have failed and were not
// applied since, in the order in which they failed. Each holds back what comes after it. They are kept in the database, because
// neither a worker's memory nor a queue can be asked after a restart, or by the worker that takes over.
type block struct {
	some bool   // there are any
	own  bool   // the message is one of them
	by   string // the message id of the one that the message comes after, or empty: nothing holds it
	dead bool   // that one is a dead letter; else it is in a retry queue
}

// findBlock reads what blocks a message: the first event that failed before it. Among events with versions, one comes after
// another whose version is lower. Without versions, what arrives later comes later.
//
// Invariant: an event is held only by such as failed before it, and before each higher version, so that none of them ever wait
// for each other.
func (w *Worker) findBlock(ctx context.Context, tx *sql.Tx, m *message) (b block, err error) {
	if b.some, err = w.anyBlocked(ctx, tx, []*message{m}); err != nil || !b.some {
		return b, err
	}
	key, version, place := aggregateHash(m.key()), m.event.AggregateVersion, uint64(math.MaxUint64)
	err = tx.QueryRowContext(ctx, "SELECT seq FROM blocked_aggregates WHERE consumer = ? AND aggregate = ? AND blocked_by = ?",
		w.cfg.Name, key[:], m.event.ID).Scan(&place)
	if b.own = err == nil; err != nil && !errors.Is(err, sql.ErrNoRows) {
		return b, fmt.Errorf("read blocked aggregates: %w", err)
	}
	var holder uint64
	err = tx.QueryRowContext(ctx, `SELECT seq, blocked_by, dead OR blocked_at < UTC_TIMESTAMP(6) - INTERVAL ? SECOND FROM blocked_aggregates
		WHERE consumer = ? AND aggregate = ? AND seq < ? AND (version = 0 OR ? = 0 OR version < ?) ORDER BY seq LIMIT 1`,
		int(retriedWithin.Seconds()), w.cfg.Name, key[:], place, version, version).Scan(&holder, &b.by, &b.dead)
	if errors.Is(err, sql.ErrNoRows) || err == nil && version == 0 {
		return b, nil
	}
	var higher bool
	if err == nil {
		err = tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT * FROM blocked_aggregates
			WHERE consumer = ? AND aggregate = ? AND seq < ? AND version > ?)`, w.cfg.Name, key[:], holder, version).Scan(&higher)
	}
	if err != nil {
		return b, fmt.Errorf("read blocked aggregates: %w", err)
	}
	if higher {
		b.by, b.dead = "", false
	}
	return b, nil
}

// anyBlocked tells whether anything blocks an aggregate of these messages.
func (w *Worker) anyBlocked(ctx context.Context, tx *sql.Tx, batch []*message) (some bool, err error) {
	args := []any{w.cfg.Name}
	for _, m := range batch {
		key := aggregateHash(m.key())
		args = append(args, key[:])
	}
	marks := strings.TrimSuffix(strings.Repeat("?,", len(batch)), ",")
	query := "SELECT EXISTS (SELECT * FROM blocked_aggregates WHERE consumer = ? AND aggregate IN (" + marks + "))"
	if err := tx.QueryRowContext(ctx, query, args...).Scan(&some); err != nil {
		return false, fmt.Errorf("read blocked aggregates: %w", err)
	}
	return some, nil
}

// revive notes that a dead letter is on its way back: what comes before it has arrived waits for it.
func (w *Worker) revive(ctx context.Context, d amqp.Delivery) error {
	if !blockable(d) {
		return nil
	}
	key := aggregateHash(aggregateKey(d))
	_, err := w.db.ExecContext(ctx, `UPDATE blocked_aggregates SET dead = FALSE, blocked_at = UTC_TIMESTAMP(6)
		WHERE consumer = ? AND aggregate = ? AND blocked_by = ?`, w.cfg.Name, key[:], d.MessageId)
	if err != nil {
		return fmt.Errorf("note that a dead letter is redriven: %w", err)
	}
	return nil
}

// blocks tells whether an event has failed and was not applied since.
func (w *Worker) blocks(ctx context.Context, aggregate, messageID string) (blocks bool, err error) {
	if !utf8.ValidString(messageID) {
		return false, nil // no row can hold it
	}
	key := aggregateHash(aggregate)
	err = w.db.QueryRowContext(ctx, "SELECT EXISTS (SELECT * FROM blocked_aggregates WHERE consumer = ? AND aggregate = ? AND blocked_by = ?)",
		w.cfg.Name, key[:], messageID).Scan(&blocks)
	if err != nil {
		return false, fmt.Errorf("read blocked aggregates: %w", err)
	}
	return blocks, nil
}

// unblock lets pass what comes after the message, once the transaction has committed. The same version under another id is the
// same event.
func (w *Worker) unblock(ctx context.Context, tx *sql.Tx, m *message) error {
	key, version := aggregateHash(m.key()), m.event.AggregateVersion
	_, err := tx.ExecContext(ctx, "DELETE FROM blocked_aggregates WHERE consumer = ? AND aggregate = ? AND blocked_by = ?",
		w.cfg.Name, key[:], m.event.ID)
	if err == nil && version != 0 {
		_, err = tx.ExecContext(ctx, "DELETE FROM blocked_aggregates WHERE consumer = ? AND aggregate = ? AND version = ?",
			w.cfg.Name, key[:], version)
	}
	if err != nil {
		return fmt.Errorf("unblock aggregate: %w", err)
	}
	return nil
}

// storeBlock notes that the event has failed and is dead or will be tried again, unless it has been applied after all. One that
// failed before keeps its place.
//
// Invariant: an event that is applied blocks nothing. A session that is lost may still be here while another process tries the
// event. So the event's inbox row is taken first, as everybody does who tries it, and reads what blocks after that: who came
// before has ended, and who comes later sees the block.
func (w *Worker) storeBlock(ctx context.Context, d amqp.Delivery, dead bool) (applied bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.HandleTimeout)
	defer cancel()
	tx, err := w.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return false, fmt.Errorf("begin: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // nothing to do after a commit

	seen, err := inbox.Record(ctx, tx, w.cfg.Name, d.MessageId, inbox.Hash(d.Body))
	switch {
	case errors.Is(err, inbox.ErrIDReused): // it was another event that was applied
	case err != nil:
		return false, err
	case seen:
		return true, nil
	default:
		if err := inbox.Forget(ctx, tx, w.cfg.Name, d.MessageId); err != nil {
			return false, err
		}
	}
	key := aggregateHash(aggregateKey(d))
	version := max(0, integer(d.Headers[schema.HeaderAggregateVersion]))
	_, err = tx.ExecContext(ctx, `INSERT INTO blocked_aggregates (consumer, aggregate, blocked_by, version, dead, blocked_at)
		VALUES (?, ?, ?, ?, ?, UTC_TIMESTAMP(6)) ON DUPLICATE KEY UPDATE dead = ?, blocked_at = UTC_TIMESTAMP(6)`,
		w.cfg.Name, key[:], d.MessageId, version, dead, dead)
	if err != nil {
		return false, fmt.Errorf("block aggregate: %w", err)
	}
	if err := tx.Commit(); err != nil {
		return false, fmt.Errorf("commit block: %w", err)
	}
	return false, nil
}

// blockable tells whether the message tells its aggregate, and an id that the table can hold. AMQP bounds the id's length, not
// what is in it, and the server would refuse it for ever.
func blockable(d amqp.Delivery) bool {
	return d.MessageId != "" && utf8.ValidString(d.MessageId) && namesAggregate(d)
}

func aggregateHash(key string) [sha256.Size]byte { return sha256.Sum256([]byte(key)) }

// block notes that the event is going to be a dead letter or to a retry queue, waiting for the database as long as it takes. It
// tells stalled when the session ended before, and duplicate when the event has been applied and must not go. A message that
// is not blockable blocks nothing.
//
// Invariant: an aggregate is blocked before its event is in the other queue, so that no later event can pass it. A
// crash in between does no harm: the event is delivered again, and it is not held by its own block.
func (sh *shard) block(ctx context.Context, d amqp.Delivery, dead bool) kind {
	if !blockable(d) {
		return blocked
	}
	pauses := newPauses(stallFirst, blockMost)
	for tries := 1; ; tries++ {
		applied, err := sh.w.storeBlock(ctx, d, dead)
		switch {
		case err != nil:
		case applied:
			return duplicate
		default:
			return blocked
		}
		if tries == 1 {
			sh.w.status.stalled.Add(1)
			defer sh.w.status.stalled.Add(-1)
		}
		if tries == 1 || tries%10 == 0 {
			sh.w.log.Warn("database does not take the block of an event that failed, waiting", zap.String("event_id", d.MessageId),
				reason(describe(err)), zap.Int("tries", tries))
		}
		if !sleep(pauses.NextBackOff(), sh.s.stop.done) {
			return stalled
		}
	}
}
