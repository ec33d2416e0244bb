package consume

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"tailbox/deploy/ops"
	"tailbox/schema"
	"tailbox/worker/inbox"
)

// blockMost bounds the pauses between tries to store a block.
const blockMost = 10 * time.Second

// duplicateKey is MySQL's ER_DUP_ENTRY.
const duplicateKey = 1062

// block is a row of blocked_aggregates: an event of the aggregate is a dead letter. It is kept in the database, because
// neither a worker's memory nor the dead-letter queue can be asked after a restart, or by the worker that takes over.
type block struct {
	by      string // the dead event's message id, or empty: nothing blocks
	version uint64 // of the dead event, or 0
}

// holds tells whether the message comes after the dead event. Without versions, whatever arrives later does.
func (b block) holds(m *message) bool {
	version := m.event.AggregateVersion
	return b.by != "" && b.by != m.event.ID && (version == 0 || b.version == 0 || version > b.version)
}

// endsWith tells whether the message is the dead event itself, or the same version under another id.
func (b block) endsWith(m *message) bool {
	return b.by != "" && (b.by == m.event.ID || b.version != 0 && b.version == m.event.AggregateVersion)
}

// findBlock reads what blocks an aggregate.
func (w *Worker) findBlock(ctx context.Context, from interface {
	QueryRowContext(context.Context, string, ...any) *sql.Row
}, aggregate string) (b block, err error) {
	key := aggregateHash(aggregate)
	err = from.QueryRowContext(ctx, "SELECT blocked_by, version FROM blocked_aggregates WHERE consumer = ? AND aggregate = ?", w.cfg.Name, key[:]).
		Scan(&b.by, &b.version)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return b, fmt.Errorf("read blocked aggregates: %w", err)
	}
	return b, nil
}

// anyBlocked tells whether anything blocks an aggregate of these messages.
func (w *Worker) anyBlocked(ctx context.Context, tx *sql.Tx, batch []*message) (bool, error) {
	args := []any{w.cfg.Name}
	for _, m := range batch {
		key := aggregateHash(m.key())
		args = append(args, key[:])
	}
	marks := strings.TrimSuffix(strings.Repeat("?,", len(batch)), ",")
	var count int
	err := tx.QueryRowContext(ctx, "SELECT COUNT(*) FROM blocked_aggregates WHERE consumer = ? AND aggregate IN ("+marks+")", args...).Scan(&count)
	if err != nil {
		return false, fmt.Errorf("read blocked aggregates: %w", err)
	}
	return count > 0, nil
}

// unblock lets the aggregate's later events pass once the transaction has committed.
func (w *Worker) unblock(ctx context.Context, tx *sql.Tx, m *message) error {
	key := aggregateHash(m.key())
	if _, err := tx.ExecContext(ctx, "DELETE FROM blocked_aggregates WHERE consumer = ? AND aggregate = ?", w.cfg.Name, key[:]); err != nil {
		return fmt.Errorf("unblock aggregate: %w", err)
	}
	return nil
}

// storeBlock notes that the event is a dead letter, unless it has been applied after all. When another one of its aggregate is
// dead, that one goes on blocking.
//
// Invariant: an event that is applied blocks nothing. A session that is lost may still be here while another process tries the
// event. So the event's inbox row is taken first, as everybody does who tries it, and reads what blocks after that: who came
// before has ended, and who comes later sees the block.
func (w *Worker) storeBlock(ctx context.Context, d amqp.Delivery) (applied bool, err error) {
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
	_, err = tx.ExecContext(ctx, `INSERT INTO blocked_aggregates (consumer, aggregate, blocked_by, version, blocked_at)
		VALUES (?, ?, ?, ?, UTC_TIMESTAMP(6))`, w.cfg.Name, key[:], d.MessageId, version)
	if err != nil && ops.MySQLCode(err) != duplicateKey {
		return false, fmt.Errorf("block aggregate: %w", err)
	}
	if err := tx.Commit(); err != nil {
		return false, fmt.Errorf("commit block: %w", err)
	}
	return false, nil
}

func aggregateHash(key string) [sha256.Size]byte { return sha256.Sum256([]byte(key)) }

// block notes that the event is going to be a dead letter, waiting for the database as long as it takes. It tells stalled when
// the session ended before, and duplicate when the event has been applied and must not die. A message that does not tell its
// aggregate, or an id that the table can hold, blocks nothing: AMQP bounds the id's length, not what is in it, and the server
// would refuse it for ever.
//
// Invariant: an aggregate is blocked before its event is in the dead-letter queue, so that no later event can pass it. A
// crash in between does no harm: the event is delivered again, and it is not held by its own block.
func (sh *shard) block(ctx context.Context, d amqp.Delivery) kind {
	if d.MessageId == "" || !utf8.ValidString(d.MessageId) || !namesAggregate(d) {
		return blocked
	}
	pauses := newPauses(stallFirst, blockMost)
	for tries := 1; ; tries++ {
		applied, err := sh.w.storeBlock(ctx, d)
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
			sh.w.log.Warn("database does not take the block of a dead letter, waiting", zap.String("event_id", d.MessageId),
				reason(describe(err)), zap.Int("tries", tries))
		}
		if !sleep(pauses.NextBackOff(), sh.s.stop.done) {
			return stalled
		}
	}
}
