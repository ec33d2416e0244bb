package retention_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/cdc/binlog"
	"tailbox/cdc/quarantine"
	"tailbox/cdc/relay"
	"tailbox/cdc/retention"
	"tailbox/schema"
	"tailbox/schema/schematest"
)

// TestALongTransactionIsNotMistakenForAnOldOne: its rows were created long before others that are confirmed, and are committed
// after those were marked.
func TestALongTransactionIsNotMistakenForAnOldOne(t *testing.T) {
	t.Parallel()
	b := setup(t, time.Hour)
	long := aged(5 * time.Hour)
	tx, err := b.db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	require.NoError(t, schema.Insert(t.Context(), tx, long))
	b.insert(aged(2 * time.Hour))
	s := retention.New(b.cfg)
	s.Interval(20 * time.Millisecond)
	b.broker.Unbind(true)
	b.insert(aged(2 * time.Hour)) // holds the mark open
	b.stepped(s)

	require.NoError(t, tx.Commit()) // marks are there, and its row is none of them
	b.run(s.Run)
	b.stay("the late row", long.ID)
	b.broker.Unbind(false)
	b.gone("all", long.ID)
}

// TestUncommittedRowsAreNotMarked, not even where the server shows them by default.
func TestUncommittedRowsAreNotMarked(t *testing.T) {
	t.Parallel()
	b := setup(t, 0)
	b.server.Params = map[string]string{"tx_isolation": "'READ-UNCOMMITTED'"}
	if !strings.Contains(b.version(), "MariaDB") {
		b.server.Params = map[string]string{"transaction_isolation": "'READ-UNCOMMITTED'"}
	}
	b.cfg.DB = schematest.Open(t, b.server.FormatDSN())
	tx, err := b.db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	open := aged(time.Hour)
	require.NoError(t, schema.Insert(t.Context(), tx, open))
	s := retention.New(b.cfg)
	for range 5 {
		waiting, err := s.Step(t.Context())
		require.NoError(t, err)
		require.False(t, waiting)
	}
	require.NoError(t, tx.Rollback())
}

func (b *bundle) version() (version string) {
	b.t.Helper()
	require.NoError(b.t, b.db.QueryRowContext(b.t.Context(), "SELECT VERSION()").Scan(&version))
	return version
}

// TestClocksDecideWhatIsMarkedAndNothingElse: a day ahead, a day behind.
func TestClocksDecideWhatIsMarkedAndNothingElse(t *testing.T) {
	t.Parallel()
	b := setup(t, time.Hour)
	b.broker.Unbind(true)
	write := func(shift string) string {
		conn, err := b.db.Conn(t.Context())
		require.NoError(t, err)
		defer conn.Close()
		id := schema.NewID()
		_, err = conn.ExecContext(t.Context(), "SET SESSION timestamp = UNIX_TIMESTAMP() "+shift)
		require.NoError(t, err)
		_, err = conn.ExecContext(t.Context(), `INSERT INTO outbox (id, aggregate_type, aggregate_id, aggregate_version, type, payload, created_at)
			VALUES (?, 'customer', '1', 1, 'CustomerCreated', '{}', UTC_TIMESTAMP(6))`, id)
		require.NoError(t, err)
		_, err = conn.ExecContext(t.Context(), "SET SESSION timestamp = DEFAULT")
		require.NoError(t, err)
		return id
	}
	behind, ahead := write("- 86400"), write("+ 86400")
	b.sweep()
	b.stay("unconfirmed rows", behind, ahead)
	b.broker.Unbind(false)
	b.gone("the one that says it is old", behind)
	b.stay("the one that says it is young", ahead)
}

func TestRowsInQuarantineStay(t *testing.T) {
	t.Parallel()
	b := setup(t, 0)
	b.broker.Unbind(true)
	events := []schema.Event{aged(2 * time.Hour), aged(time.Hour), aged(0)}
	ids := b.insert(events...)
	// As the relay does before its checkpoint passes an event that cannot be a message.
	store := quarantine.New(b.db, "other", quarantine.Config{})
	require.NoError(t, store.Add(t.Context(), 0, relay.Row{Event: events[1], Position: "p", CommittedAt: time.Now()}, errors.New("too long")))
	b.broker.Unbind(false)
	b.sweep()
	b.gone("the others", ids[0], ids[2])
	b.stay("the one in quarantine", ids[1])
	b.exec("DELETE FROM relay_quarantine")
	b.insert(aged(0)) // something happens
	b.gone("what left the quarantine", ids[1])
}

// TestAnIDThatWasInsertedAgainIsNotHit: it was marked, deleted by somebody else, and is young now.
func TestAnIDThatWasInsertedAgainIsNotHit(t *testing.T) {
	t.Parallel()
	b := setup(t, time.Hour)
	b.broker.Unbind(true)
	e := aged(2 * time.Hour)
	b.insert(e, aged(2*time.Hour))
	s := retention.New(b.cfg)
	b.stepped(s)
	b.exec("DELETE FROM outbox WHERE id = ?", e.ID)
	e.CreatedAt = time.Now().UTC().Truncate(time.Microsecond)
	b.insert(e)
	b.broker.Unbind(false)
	require.Eventually(t, func() bool {
		waiting, err := s.Step(t.Context())
		require.NoError(t, err)
		return !waiting && s.Deleted() == 1
	}, 30*time.Second, 10*time.Millisecond)
	require.Contains(t, b.left(), e.ID)
}

// TestMarksOfAnotherPlaceAreDropped: after a move nothing says that what was marked is behind the checkpoint.
func TestMarksOfAnotherPlaceAreDropped(t *testing.T) {
	t.Parallel()
	b := setup(t, 0)
	first := b.insert(aged(0))
	require.Eventually(t, func() bool {
		return b.engine.Status().EventID == first[0] && b.engine.Status().SavedEventID == first[0]
	}, 30*time.Second, 5*time.Millisecond)
	back := b.engine.Status().Saved
	b.broker.Unbind(true)
	b.insert(aged(0))
	conn, err := b.db.Conn(t.Context())
	require.NoError(t, err)
	defer conn.Close()
	var mark binlog.Mark
	require.Eventually(t, func() bool { // it is lost while another's commit has been read and is not in the server's set yet
		mark, err = b.reader.Mark(t.Context(), conn)
		return err == nil
	}, 30*time.Second, time.Millisecond)
	passed, err := b.reader.Passed(b.engine.Status().Saved, mark)
	require.NoError(t, err)
	require.False(t, passed)
	b.broker.Unbind(false)
	require.Eventually(t, func() bool {
		passed, err := b.reader.Passed(b.engine.Status().Saved, mark)
		return err == nil && passed
	},
		30*time.Second, 5*time.Millisecond, "once all is confirmed")

	require.NoError(t, b.engine.Move(t.Context(), back))
	require.Eventually(t, func() bool { _, err := b.reader.Passed(back, mark); return errors.Is(err, binlog.ErrMarkLost) }, 30*time.Second, time.Millisecond)
}
