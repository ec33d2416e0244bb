package inbox_test

import (
	"database/sql"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	_ "github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"tailbox/deploy/ops"
	"tailbox/schema"
	"tailbox/schema/schematest"
	"tailbox/worker/inbox"
)

func TestMain(m *testing.M) { schematest.Main(m) }

func record(t *testing.T, tx *sql.Tx, consumer, id, payload string) (bool, error) {
	t.Helper()
	return inbox.Record(t.Context(), tx, consumer, id, inbox.Hash([]byte(payload)))
}

func TestMessageIsSeenOnlyAfterItsTransactionCommitted(t *testing.T) {
	t.Parallel()
	db := schematest.Open(t, schematest.DB(t))
	id := schema.NewID()

	for _, commit := range []bool{false, true} {
		tx, err := db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		seen, err := record(t, tx, "customers", id, "{}")
		require.NoError(t, err)
		require.False(t, seen)
		if commit {
			require.NoError(t, tx.Commit())
		} else {
			require.NoError(t, tx.Rollback())
		}
	}

	tx, err := db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	defer func() { require.NoError(t, tx.Rollback()) }()
	seen, err := record(t, tx, "customers", id, "{}")
	require.NoError(t, err)
	require.True(t, seen)
	seen, err = record(t, tx, "invoices", id, "{}")
	require.NoError(t, err)
	require.False(t, seen, "each consumer has an inbox of its own")
	_, err = record(t, tx, "customers", id, `{"other":1}`)
	require.ErrorIs(t, err, inbox.ErrIDReused)
}

func TestOneOfManyConcurrentTransactionsRecordsAMessage(t *testing.T) {
	t.Parallel()
	db := schematest.Open(t, schematest.DB(t))
	db.SetMaxOpenConns(8)
	for _, level := range []sql.IsolationLevel{sql.LevelReadCommitted, sql.LevelRepeatableRead} {
		t.Run(level.String(), func(t *testing.T) {
			var first atomic.Int32
			var racers sync.WaitGroup
			for range 8 {
				racers.Go(func() {
					for n := range 20 {
						for !recordOnce(t, db, level, fmt.Sprintf("%s-%d", level, n), &first) {
						}
					}
				})
			}
			racers.Wait()
			require.EqualValues(t, 20, first.Load())
		})
	}
}

// deadlocked tells whether trying again is all that is needed.
func deadlocked(err error) bool {
	code := ops.MySQLCode(err)
	return code == 1213 || code == 1020
}

// recordOnce tells whether it came through: a deadlock has to be tried again, as the consumer does.
func recordOnce(t *testing.T, db *sql.DB, level sql.IsolationLevel, id string, first *atomic.Int32) bool {
	tx, err := db.BeginTx(t.Context(), &sql.TxOptions{Isolation: level})
	if err != nil {
		t.Errorf("begin: %v", err)
		return true
	}
	defer func() { _ = tx.Rollback() }()
	var one int
	if err := tx.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM inbox").Scan(&one); err != nil { // makes the snapshot
		t.Errorf("read: %v", err)
		return true
	}
	seen, err := record(t, tx, "customers", id, "{}")
	if deadlocked(err) {
		return false
	}
	if err != nil {
		t.Errorf("record: %v", err)
		return true
	}
	if err := tx.Commit(); err != nil {
		return false
	}
	if !seen {
		first.Add(1)
	}
	return true
}
