package binlog_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"tailbox/cdc/binlog"
	"tailbox/cdc/relay"
	"tailbox/schema"
	"tailbox/schema/schematest"
)

func TestMain(m *testing.M) { schematest.Main(m) }

// bundle is a fresh database and readers of its outbox.
type bundle struct {
	t   *testing.T
	db  *sql.DB
	dsn string
}

// unfenced is for a table that nobody writes to while a stream begins.
func unfenced(context.Context) error { return nil }

func setup(t *testing.T) *bundle {
	t.Helper()
	dsn := schematest.DB(t)
	return &bundle{t: t, db: schematest.Open(t, dsn), dsn: dsn}
}

func (b *bundle) reader(start binlog.Start, change ...func(*binlog.Config)) *binlog.Reader {
	b.t.Helper()
	server, err := mysql.ParseDSN(b.dsn)
	require.NoError(b.t, err)
	b.exec("INSERT IGNORE INTO relay_checkpoint (relay, holder, epoch) VALUES ('default', 'test', 1)")
	cfg := binlog.Config{
		Server: server, DB: b.db, Start: start,
		Outbox: binlog.Table{Schema: server.DBName, Name: "outbox"},
		Own:    []binlog.Table{{Schema: server.DBName, Name: "relay_checkpoint"}},
		Fence: func(ctx context.Context) error {
			_, err := b.db.ExecContext(ctx, "UPDATE relay_checkpoint SET saved_at = UTC_TIMESTAMP(6)")
			return err
		},
	}
	for _, f := range change {
		f(&cfg)
	}
	return binlog.New(cfg)
}

func (b *bundle) exec(query string, args ...any) {
	b.t.Helper()
	_, err := b.db.ExecContext(b.t.Context(), query, args...)
	require.NoError(b.t, err)
}

// commit writes events in one transaction and returns their ids.
func (b *bundle) commit(n int) []string {
	b.t.Helper()
	tx, err := b.db.BeginTx(b.t.Context(), nil)
	require.NoError(b.t, err)
	var ids []string
	for range n {
		e := schematest.Event()
		require.NoError(b.t, schema.Insert(b.t.Context(), tx, e))
		ids = append(ids, e.ID)
	}
	require.NoError(b.t, tx.Commit())
	return ids
}

// marker commits one event that ends a read, after which the stream is known to be caught up.
func (b *bundle) marker() string { return b.commit(1)[0] }

var errEnough = errors.New("enough")

// read streams until the row with that id, or the n-th row if the id is empty.
func (b *bundle) read(r *binlog.Reader, until string, n int) []relay.Row {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	var rows []relay.Row
	err := r.Stream(ctx, func(row relay.Row) error {
		rows = append(rows, row)
		if row.Event.ID == until || until == "" && len(rows) == n {
			return errEnough
		}
		return nil
	})
	require.ErrorIs(b.t, err, errEnough)
	return rows
}

func ids(rows []relay.Row) []string {
	var ids []string
	for _, row := range rows {
		ids = append(ids, row.Event.ID)
	}
	return ids
}

func TestStreamDeliversCommittedRowsInCommitOrderByteForByte(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.reader(binlog.StartLatest)
	r.Begin(relay.Position{})
	first := b.startLatest(r)

	e := schematest.Event(func(e *schema.Event) {
		e.AggregateVersion = 1<<63 + 5
		e.Payload = []byte(`{ "name":"Zoë \u00e9 🚀", "n": 1.0 }`)
		e.Headers = map[string]string{"traceparent": "00-x", "x": "y"}
	})
	require.NoError(t, schema.Insert(t.Context(), b.db, e))
	rows := b.read(r, e.ID, 0)
	require.Equal(t, []string{first, e.ID}, ids(rows))
	got := rows[1]
	require.Equal(t, e, got.Event)
	require.Equal(t, uint64(2), got.Seq)
	require.NotEmpty(t, got.Position)
	require.WithinDuration(t, time.Now(), got.CommittedAt, 10*time.Second)
}

// startLatest makes the reader take the present end as its place, and commits a first row behind it.
func (b *bundle) startLatest(r *binlog.Reader) string {
	b.t.Helper()
	ctx, cancel := context.WithCancel(b.t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Stream(ctx, func(relay.Row) error { return errEnough }) }()
	require.Eventually(b.t, func() bool { _, _, ok := r.Confirmed(0); return ok }, 30*time.Second, time.Millisecond)
	cancel()
	require.Error(b.t, <-done)
	return b.commit(1)[0]
}

func TestRolledBackRowsAreNeverDelivered(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.reader(binlog.StartEarliest)
	r.Begin(relay.Position{})

	kept := b.commit(2)
	tx, err := b.db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	require.NoError(t, schema.Insert(t.Context(), tx, schematest.Event()))
	require.NoError(t, tx.Rollback())

	tx, err = b.db.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	e := schematest.Event()
	require.NoError(t, schema.Insert(t.Context(), tx, e))
	_, err = tx.ExecContext(t.Context(), "SAVEPOINT a")
	require.NoError(t, err)
	require.NoError(t, schema.Insert(t.Context(), tx, schematest.Event()))
	_, err = tx.ExecContext(t.Context(), "ROLLBACK TO a")
	require.NoError(t, err)
	require.NoError(t, tx.Commit())

	last := b.marker()
	require.Equal(t, append(append(kept, e.ID), last), ids(b.read(r, last, 0)))
}

func TestEveryFormOfInsertIsDeliveredAndNothingElseIs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.reader(binlog.StartEarliest)
	r.Begin(relay.Position{})

	multi := b.commit(3)
	b.exec("UPDATE outbox SET type = 'Changed'")
	b.exec("DELETE FROM outbox WHERE id = ?", multi[0])
	b.exec("CREATE TABLE source LIKE outbox")
	b.exec("INSERT INTO source SELECT * FROM outbox")
	b.exec("UPDATE source SET id = UUID()")
	b.exec("INSERT INTO outbox SELECT * FROM source ORDER BY id")
	var selected []string
	rows, err := b.db.QueryContext(t.Context(), "SELECT id FROM source ORDER BY id")
	require.NoError(t, err)
	defer rows.Close()
	for rows.Next() {
		var id string
		require.NoError(t, rows.Scan(&id))
		selected = append(selected, id)
	}
	require.NoError(t, rows.Err())
	b.exec("TRUNCATE outbox")
	last := b.marker()
	require.Equal(t, append(append(multi, selected...), last), ids(b.read(r, last, 0)))
}

func TestSnapshotSendsWhatTheTableHoldsThenWhatIsCommitted(t *testing.T) {
	t.Parallel()
	b := setup(t)
	// Versions written by clocks that disagree: the order of the versions wins.
	customer := schema.NewID()
	now := time.Now().UTC().Truncate(time.Second).Add(-5 * time.Hour)
	var want []string
	for version, skew := range []time.Duration{0, -time.Hour, time.Hour} {
		e := schematest.Event(func(e *schema.Event) {
			e.AggregateID, e.AggregateVersion, e.CreatedAt = customer, uint64(version+1), now.Add(skew)
		})
		require.NoError(t, schema.Insert(t.Context(), b.db, e))
		want = append(want, e.ID)
	}
	r := b.reader(binlog.StartSnapshot)
	r.Begin(relay.Position{})
	_, _, ok := r.Confirmed(0)
	require.False(t, ok, "inside a snapshot there is no place")
	require.Equal(t, want, ids(b.read(r, "", 3)))
	_, _, ok = r.Confirmed(2)
	require.False(t, ok, "before the last row of the snapshot is confirmed there is no place")

	// The snapshot broke off at its last row, so it begins again; then the stream follows.
	var again []relay.Row
	var after string
	err := r.Stream(t.Context(), func(row relay.Row) error {
		again = append(again, row)
		switch {
		case len(again) == len(want):
			after = b.marker()
		case row.Event.ID == after:
			return errEnough
		}
		return nil
	})
	require.ErrorIs(t, err, errEnough)
	require.Equal(t, append(want, after), ids(again))
	_, _, ok = r.Confirmed(again[0].Seq)
	require.False(t, ok)
	_, _, ok = r.Confirmed(again[len(want)-1].Seq)
	require.True(t, ok)
}

func TestResumeGoesOnBehindTheLastConfirmedRowEvenInsideATransaction(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.reader(binlog.StartEarliest)
	r.Begin(relay.Position{})
	all := append(b.commit(5), b.commit(7)...)
	all = append(all, b.commit(3)...)
	require.Equal(t, all, ids(b.read(r, "", len(all))))

	for confirmed := range uint64(len(all) + 1) {
		place, _, ok := r.Confirmed(confirmed)
		require.True(t, ok)
		next := b.reader(binlog.StartLatest)
		next.Begin(place)
		last := b.marker()
		rows := b.read(next, last, 0)
		require.Equal(t, all[confirmed:], ids(rows)[:len(all)-int(confirmed)], "confirmed %d at %+v", confirmed, place)
		require.Equal(t, uint64(1), rows[0].Seq)

		// A process that has confirmed nothing yet has the place that it was given.
		again, _, ok := next.Confirmed(0)
		require.True(t, ok)
		if confirmed < uint64(len(all)) {
			require.Equal(t, place.SkipRows, again.SkipRows)
			require.Equal(t, place.GTIDSet, again.GTIDSet)
		}
	}
}

func TestABrokenStreamGoesOnBehindTheLastDeliveredRow(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.reader(binlog.StartEarliest)
	r.Begin(relay.Position{})
	all := append(b.commit(4), b.commit(6)...)
	last := b.marker()
	all = append(all, last)
	var got []relay.Row
	for len(got) < len(all) { // break after each single row
		got = append(got, b.read(r, "", 1)...)
	}
	require.Equal(t, all, ids(got))
	for i, row := range got {
		require.Equal(t, uint64(i+1), row.Seq)
	}
}

func TestOwnCheckpointWritesAreNoProgress(t *testing.T) {
	t.Parallel()
	b := private(t) // where nobody else commits
	r := b.reader(binlog.StartEarliest)
	r.Begin(relay.Position{})
	passed := func() uint64 {
		t.Helper()
		rows := b.read(r, b.marker(), 0)
		_, passed, _ := r.Confirmed(rows[len(rows)-1].Seq)
		return passed
	}
	before := passed()
	b.exec("UPDATE relay_checkpoint SET epoch = epoch + 1")
	b.exec("UPDATE relay_checkpoint SET epoch = epoch + 1")
	after := passed()
	require.Equal(t, before+1, after, "the event alone")
	b.exec("CREATE TABLE other (a INT)")
	b.exec("INSERT INTO other VALUES (1)")
	require.Equal(t, after+3, passed(), "the table, its row and the event")
}

func TestPreflightNamesTheSettingAndTheStatement(t *testing.T) {
	t.Parallel()
	b := setup(t)
	preflight := func() error {
		checks, err := b.reader(binlog.StartLatest).Checks(t.Context())
		require.NoError(t, err)
		if found := relay.Fatal(checks); len(found) > 0 {
			return found
		}
		return nil
	}
	require.NoError(t, preflight())

	b.exec("ALTER TABLE outbox DROP COLUMN type, RENAME COLUMN aggregate_id TO aggregateid")
	err := preflight()
	var findings relay.Findings
	require.ErrorAs(t, err, &findings)
	require.Len(t, findings, 1)
	require.ErrorContains(t, err, "lacks the column type")

	b.exec("DROP TABLE outbox")
	require.ErrorContains(t, preflight(), "does not exist, or the user may not see it")
}

func TestPreflightOfAUserWithoutRights(t *testing.T) {
	t.Parallel()
	b := setup(t)
	user := "u" + strings.ReplaceAll(schema.NewID(), "-", "")[:20]
	b.exec(fmt.Sprintf("CREATE USER '%s'@'%%' IDENTIFIED BY 'Secret-1'", user))
	b.exec(fmt.Sprintf("GRANT SELECT ON outbox TO '%s'@'%%'", user))
	t.Cleanup(func() { _, _ = b.db.Exec(fmt.Sprintf("DROP USER '%s'@'%%'", user)) })

	as := func(password string) error {
		server, err := mysql.ParseDSN(b.dsn)
		require.NoError(t, err)
		server.User, server.Passwd = user, password
		db := schematest.Open(t, server.FormatDSN())
		r := binlog.New(binlog.Config{Server: server, DB: db, Outbox: binlog.Table{Schema: server.DBName, Name: "outbox"}})
		checks, err := r.Checks(t.Context())
		require.NoError(t, err)
		return relay.Fatal(checks)
	}
	require.ErrorContains(t, as("Secret-1"), "GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.*")
	require.ErrorContains(t, as("wrong"), "MYSQL_DSN")
}
