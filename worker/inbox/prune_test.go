package inbox_test

import (
	"database/sql"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/schema/schematest"
	"tailbox/worker/inbox"
)

const retention = 30 * 24 * time.Hour

// old writes rows that were applied so many days ago, with the given ids.
func old(t *testing.T, db *sql.DB, consumer string, days int, ids ...string) {
	t.Helper()
	for _, id := range ids {
		hash := inbox.Hash(nil)
		_, err := db.ExecContext(t.Context(), "INSERT INTO inbox VALUES (?, ?, ?, UTC_TIMESTAMP(6) - INTERVAL ? DAY)", consumer, id, hash[:], days)
		require.NoError(t, err)
	}
}

func numbered(prefix string, count int) []string {
	ids := make([]string, count)
	for i := range ids {
		ids[i] = fmt.Sprintf("%s%d", prefix, i)
	}
	return ids
}

func horizon(t *testing.T, db *sql.DB, consumer string) time.Time {
	t.Helper()
	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, tx.Rollback()) }()
	at, err := inbox.Horizon(t.Context(), tx, consumer)
	require.NoError(t, err)
	return at
}

func TestPruneTakesTheOldestRowsOfOneConsumerInSmallBatches(t *testing.T) {
	t.Parallel()
	db := schematest.Open(t, schematest.DB(t))
	old(t, db, "customers", 40, numbered("a", 5)...)
	old(t, db, "customers", 35, numbered("b", 5)...)
	old(t, db, "customers", 29, numbered("c", 5)...)
	old(t, db, "invoices", 40, numbered("a", 5)...)
	require.Zero(t, horizon(t, db, "customers"), "nothing was pruned yet")

	pruned, more, err := inbox.Prune(t.Context(), db, "customers", retention, 5)
	require.NoError(t, err)
	require.Equal(t, 5, pruned)
	require.True(t, more)
	require.WithinDuration(t, time.Now().UTC().AddDate(0, 0, -40).Add(inbox.Slack), horizon(t, db, "customers"), time.Minute, "no further than what was deleted")

	total := 0
	for more {
		pruned, more, err = inbox.Prune(t.Context(), db, "customers", retention, 3)
		require.NoError(t, err)
		total += pruned
	}
	require.Equal(t, 5, total)
	require.WithinDuration(t, time.Now().UTC().AddDate(0, 0, -35).Add(inbox.Slack), horizon(t, db, "customers"), time.Minute)
	require.Zero(t, horizon(t, db, "invoices"))
	var left int
	require.NoError(t, db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM inbox").Scan(&left))
	require.Equal(t, 10, left)
}

// Redeliveries race with several pruners. Whoever finds no row must be told that the message may have been applied.
func TestNoRowIsGoneBeforeTheHorizonTells(t *testing.T) {
	t.Parallel()
	db := schematest.Open(t, schematest.DB(t))
	db.SetMaxOpenConns(8)
	const rows, pruners, redeliveries = 300, 3, 4
	created := time.Now().UTC().AddDate(0, 0, -40).Add(-time.Minute)
	old(t, db, "customers", 40, numbered("m", rows)...)

	var deleted, missed atomic.Int64
	var group sync.WaitGroup
	for range pruners {
		group.Go(func() {
			for more := true; more; {
				pruned, goesOn, err := inbox.Prune(t.Context(), db, "customers", retention, 7)
				if err != nil && !deadlocked(err) {
					t.Errorf("prune: %v", err)
				}
				deleted.Add(int64(pruned))
				more = goesOn || deadlocked(err)
			}
		})
	}
	for range redeliveries { // of the row that is to be deleted next
		group.Go(func() {
			for {
				var id string
				err := db.QueryRowContext(t.Context(), "SELECT message_id FROM inbox ORDER BY processed_at LIMIT 1").Scan(&id)
				if err != nil || !seenOrForgotten(t, db, id, created, &missed) {
					return
				}
			}
		})
	}
	group.Wait()
	require.EqualValues(t, rows, deleted.Load(), "each row is deleted by one of them")
	require.Positive(t, missed.Load(), "some redelivery came too late")
}

func seenOrForgotten(t *testing.T, db *sql.DB, id string, created time.Time, missed *atomic.Int64) bool {
	tx, err := db.BeginTx(t.Context(), &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		t.Errorf("begin: %v", err)
		return false
	}
	defer func() { _ = tx.Rollback() }()
	seen, err := inbox.Record(t.Context(), tx, "customers", id, inbox.Hash(nil))
	if deadlocked(err) {
		return true
	}
	if err != nil {
		t.Errorf("record: %v", err)
		return false
	}
	if seen {
		return true
	}
	missed.Add(1)
	at, err := inbox.Horizon(t.Context(), tx, "customers")
	if err != nil || !created.Before(at) {
		t.Errorf("%s has no row, and the horizon is %v (%v)", id, at, err)
		return false
	}
	return true
}
