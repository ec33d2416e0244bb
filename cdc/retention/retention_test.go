package retention_test

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/cdc/binlog"
	"tailbox/cdc/relay"
	"tailbox/cdc/retention"
	"tailbox/deploy/stack"
	"tailbox/schema"
	"tailbox/schema/schematest"
)

func TestConfirmedRowsGoWhenTheyAreOldEnough(t *testing.T) {
	t.Parallel()
	b := setup(t, time.Hour)
	old := b.insert(aged(2*time.Hour), aged(90*time.Minute))
	young := b.insert(aged(0), aged(30*time.Minute))
	s := b.sweep()
	b.gone("old rows", old...)
	b.stay("young rows", young...)
	require.Equal(t, uint64(2), s.Deleted())
}

// TestARowThatReachedNoQueueStays: the checkpoint has not passed it, however old it is, and none behind it goes either.
func TestARowThatReachedNoQueueStays(t *testing.T) {
	t.Parallel()
	b := setup(t, 0)
	b.sweep()
	b.gone("what is confirmed", b.insert(aged(time.Hour))...)
	b.broker.Unbind(true)
	held := append(b.insert(aged(time.Hour)), b.insert(aged(48*time.Hour), aged(0))...)
	b.stay("unconfirmed rows", held...)
	b.broker.Unbind(false)
	b.gone("all, now that they are confirmed", held...)
}

func TestNothingGoesWhileTheBrokerIsAway(t *testing.T) {
	t.Parallel()
	b := setup(t, time.Hour)
	b.broker.Down(true)
	var lagging []string
	for range 20 {
		lagging = append(lagging, b.insert(aged(2*time.Hour), aged(3*time.Hour))...)
	}
	b.sweep()
	b.stay("unconfirmed rows", lagging...)
	b.broker.Down(false)
	b.gone("all, now that they are confirmed", lagging...)
}

// TestAnEmptyOutboxIsRelayed: applications in Debezium's habit delete a row in the transaction that inserts it.
func TestAnEmptyOutboxIsRelayed(t *testing.T) {
	t.Parallel()
	b := setup(t, 0)
	s := b.sweep()
	var ids []string
	for range 20 {
		tx, err := b.db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		e := aged(0)
		require.NoError(t, schema.Insert(t.Context(), tx, e))
		_, err = tx.ExecContext(t.Context(), "DELETE FROM outbox WHERE id = ?", e.ID)
		require.NoError(t, err)
		require.NoError(t, tx.Commit())
		ids = append(ids, e.ID)
	}
	require.Eventually(t, func() bool { return len(b.broker.Routed()) == len(ids) }, 30*time.Second, 5*time.Millisecond)
	require.Equal(t, ids, b.broker.Routed())
	require.Zero(t, s.Deleted())
}

const debezium = "ALTER TABLE outbox DROP COLUMN created_at, DROP COLUMN aggregate_version, DROP COLUMN headers, " +
	"RENAME COLUMN aggregate_type TO aggregatetype, RENAME COLUMN aggregate_id TO aggregateid"

func TestATableWithoutCreatedAtHasNoAge(t *testing.T) {
	t.Parallel()
	b := setup(t, 0, debezium)
	b.sweep()
	id := schema.NewID()
	b.exec("INSERT INTO outbox (id, aggregatetype, aggregateid, type, payload) VALUES (?, 'customer', '1', 'CustomerCreated', '{}')", id)
	b.gone("what is confirmed", id)

	check, err := b.cfg.Check(t.Context())
	require.NoError(t, err)
	require.Equal(t, relay.CheckOK, check.Level)
	b.cfg.Keep = time.Hour
	check, err = b.cfg.Check(t.Context())
	require.NoError(t, err)
	require.Equal(t, relay.CheckFail, check.Level)
	require.Equal(t, relay.SchemaMismatch, check.Reason)
	require.Contains(t, check.String(), "RETENTION=0")
	b.cfg.Keep = retention.Off
	check, err = b.cfg.Check(t.Context())
	require.NoError(t, err)
	require.Equal(t, relay.CheckOK, check.Level)
}

func TestAMissingRightIsNamedAndNothingElseHappens(t *testing.T) {
	t.Parallel()
	b := setup(t, 0)
	user := "u" + strings.ReplaceAll(schema.NewID(), "-", "")[:20]
	b.exec(fmt.Sprintf("CREATE USER '%s'@'%%' IDENTIFIED BY 'Secret-1'", user))
	b.exec(fmt.Sprintf("GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO '%s'@'%%'", user))
	b.exec(fmt.Sprintf("GRANT SELECT ON %s.* TO '%s'@'%%'", b.server.DBName, user))
	t.Cleanup(func() { _, _ = b.db.Exec(fmt.Sprintf("DROP USER '%s'@'%%'", user)) })
	server := b.server.Clone()
	server.User, server.Passwd = user, "Secret-1"
	b.cfg.DB, b.cfg.User = schematest.Open(t, server.FormatDSN()), user

	check, err := b.cfg.Check(t.Context())
	require.NoError(t, err)
	require.Equal(t, relay.CheckWarn, check.Level, "events go out all the same")
	require.Contains(t, check.Mend, fmt.Sprintf("GRANT DELETE ON %s.outbox TO '%s'", b.server.DBName, user))
	s := b.sweep()
	b.stay("all rows", b.insert(aged(time.Hour))...)
	require.Zero(t, s.Deleted())
}

// TestNoRowIsDeletedBeforeItIsConfirmed: whatever the broker, transactions and clocks do, each row that is gone is in a queue.
func TestNoRowIsDeletedBeforeItIsConfirmed(t *testing.T) {
	t.Parallel()
	for _, keep := range []time.Duration{0, time.Minute} {
		t.Run(fmt.Sprint("keep ", keep), func(t *testing.T) {
			t.Parallel()
			b := setup(t, keep)
			s := b.sweep()
			var all []string
			check := func() {
				left, routed := b.left(), map[string]bool{}
				for _, id := range b.broker.Routed() {
					routed[id] = true
				}
				for _, id := range all {
					require.True(t, left[id] || routed[id], "event %s is neither in the table nor in a queue", id)
				}
			}
			type pending struct {
				tx  *sql.Tx
				ids []string
			}
			var open []pending
			commit := func(at int) {
				require.NoError(t, open[at].tx.Commit())
				all = append(all, open[at].ids...)
				open = append(open[:at], open[at+1:]...)
			}
			for range 150 {
				tx, err := b.db.BeginTx(t.Context(), nil)
				require.NoError(t, err)
				p := pending{tx: tx}
				for range 1 + rand.IntN(5) {
					e := aged(time.Duration(rand.IntN(2*86400)-86400) * time.Second)
					require.NoError(t, schema.Insert(t.Context(), tx, e))
					p.ids = append(p.ids, e.ID)
				}
				if open = append(open, p); len(open) > 15 || rand.IntN(3) > 0 {
					commit(rand.IntN(len(open)))
				}
				switch rand.IntN(10) {
				case 0:
					b.broker.Unbind(rand.IntN(2) == 0)
				case 1:
					b.broker.Down(rand.IntN(2) == 0)
				}
				check()
			}
			for len(open) > 0 {
				commit(0)
			}
			b.broker.Unbind(false)
			b.broker.Down(false)
			check()
			if keep == 0 {
				require.Eventually(t, func() bool { return len(b.left()) == 0 }, 30*time.Second, 10*time.Millisecond, "all confirmed, all gone")
			}
			require.Eventually(t, func() bool { return s.Deleted() > 0 }, 30*time.Second, 10*time.Millisecond, "rows are deleted at all")
		})
	}
}

// TestRowsThatStartLatestPassedOverStay: they were never sent. One of them was written by a clock that is ahead.
func TestRowsThatStartLatestPassedOverStay(t *testing.T) {
	t.Parallel()
	dsn := schematest.DB(t)
	before, ahead := aged(time.Minute), aged(-time.Minute)
	require.NoError(t, schema.Insert(t.Context(), schematest.Open(t, dsn), before, ahead))
	b := setupOn(t, dsn, binlog.StartLatest, 0)
	b.sweep()
	b.gone("what is sent", b.insert(aged(-2*time.Minute))...)
	b.stay("what was passed over", before.ID, ahead.ID)
	require.NotContains(t, b.broker.Routed(), before.ID)
}

// TestDeletesOfItsOwnDoNotKeepTheRelaySaving: on a server where nothing else happens, it comes to rest.
func TestDeletesOfItsOwnDoNotKeepTheRelaySaving(t *testing.T) {
	t.Parallel()
	set, err := stack.SetFromEnv()
	require.NoError(t, err)
	dir, err := os.MkdirTemp("", "tailbox-retention-")
	require.NoError(t, err)
	server, err := stack.NewMySQL(t.Context(), stack.Config{Dir: dir, Set: set})
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = server.Kill() // the data is thrown away
		require.NoError(t, server.Stop(context.Background()))
		require.NoError(t, os.RemoveAll(dir))
	})
	require.NoError(t, server.Start(t.Context()))
	_, err = schematest.Open(t, server.DSN("")).ExecContext(t.Context(), "CREATE DATABASE tailbox")
	require.NoError(t, err)
	_, err = schema.Migrate(t.Context(), schematest.Open(t, server.DSN("tailbox")))
	require.NoError(t, err)

	b := setupOn(t, server.DSN("tailbox"), binlog.StartSnapshot, 0)
	b.sweep()
	for range 10 {
		b.gone("what is confirmed", b.insert(aged(0), aged(0))...)
	}
	before, quiet := b.saves.Load(), time.Now()
	require.Eventually(t, func() bool { // an idle save is due every 50 ms
		if n := b.saves.Load(); n != before {
			before, quiet = n, time.Now()
		}
		return time.Since(quiet) > time.Second
	}, 30*time.Second, 10*time.Millisecond, "rest")
}
