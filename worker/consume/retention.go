package consume

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"tailbox/worker/inbox"
)

const (
	pruneEvery = time.Minute      // how often old rows are looked for
	pruneBatch = 500              // rows at a time
	pruneShare = 3                // the pause after a batch, in times that the batch took: handling comes first
	pruneLimit = 20 * time.Second // of one batch
)

// youngEnough is an age below which no message can be older than the inbox remembers, whatever the retention and the clocks.
const youngEnough = inbox.MinRetention / 2

// errForgotten ends a batch with an event that may have been applied before: each event then finds out for itself.
var errForgotten = errors.New("an event is older than the inbox remembers")

// checkRetention refuses a retention that a message could outlive on its ordinary way through the retry queues.
func checkRetention(retention time.Duration, maxAttempts int) error {
	least := max(inbox.MinRetention, longestRetry(maxAttempts)+inbox.Slack)
	if retention == KeepInbox || retention >= least {
		return nil
	}
	return fmt.Errorf("INBOX_RETENTION: %v is too short: it has to be %v, a day or what the retry queues hold a message in %d attempts and %v for clocks that differ",
		retention, least, maxAttempts, inbox.Slack)
}

// longestRetry is how long a message that fails every time is in retry queues before it is a dead letter.
func longestRetry(maxAttempts int) (total time.Duration) {
	for attempt := 1; attempt < maxAttempts; attempt++ {
		total += delayAfter(attempt)
	}
	return total
}

// pruneInbox deletes what the inbox need not remember any more, from time to time until the context ends. It is not in the
// path of any message; every process of the consumer does it.
func (w *Worker) pruneInbox(ctx context.Context) {
	if w.cfg.InboxRetention == KeepInbox {
		return
	}
	for {
		if total, err := w.pruneAll(ctx); total > 0 || err != nil && ctx.Err() == nil {
			w.tellPruned(total, err)
		}
		if !sleep(pruneEvery/2+rand.N(pruneEvery), ctx.Done()) { // several processes spread out
			return
		}
	}
}

// pruneAll prunes batch after batch, with pauses, and tells how many rows that were.
func (w *Worker) pruneAll(ctx context.Context) (total int, err error) {
	for more := true; more; {
		began := time.Now()
		var pruned int
		bounded, cancel := context.WithTimeout(ctx, pruneLimit)
		pruned, more, err = inbox.Prune(bounded, w.db, w.cfg.Name, w.cfg.InboxRetention, pruneBatch)
		cancel()
		if err != nil {
			return total, err
		}
		w.metrics.pruned.Add(float64(pruned))
		total += pruned
		if more && !sleep(pruneShare*time.Since(began), ctx.Done()) {
			return total, nil
		}
	}
	return total, nil
}

func (w *Worker) tellPruned(total int, err error) {
	if err != nil {
		w.log.Warn("pruning the inbox broke off, trying again later", reason(describe(err)), zap.Int("pruned", total))
		return
	}
	w.log.Info("pruned the inbox", zap.Int("pruned", total), zap.Duration("retention", w.cfg.InboxRetention))
}

// mayBeForgotten tells whether a message without an inbox row may have been applied before. Only an old one asks the database,
// and only one whose handler does not know by the version.
//
// Invariant: nothing is applied a second time because its inbox row was pruned.
func (w *Worker) mayBeForgotten(ctx context.Context, tx *sql.Tx, m *message) (bool, error) {
	if !w.asksHorizon(m) {
		return false, nil
	}
	horizon, err := inbox.Horizon(ctx, tx, w.cfg.Name)
	return m.event.CreatedAt.Before(horizon), err
}

// anyForgotten tells whether that is so for any message of a batch that was not found in the inbox.
func (w *Worker) anyForgotten(ctx context.Context, tx *sql.Tx, batch []*message, seen []bool) (bool, error) {
	oldest := time.Now()
	for i, m := range batch {
		if !seen[i] && w.asksHorizon(m) && m.event.CreatedAt.Before(oldest) {
			oldest = m.event.CreatedAt
		}
	}
	if time.Since(oldest) < youngEnough {
		return false, nil
	}
	horizon, err := inbox.Horizon(ctx, tx, w.cfg.Name)
	return oldest.Before(horizon), err
}

func (w *Worker) asksHorizon(m *message) bool {
	known := m.acceptOld || w.cfg.ChecksVersions && m.event.AggregateVersion != 0
	return !known && time.Since(m.event.CreatedAt) >= youngEnough
}
