package checkpoint_test

import (
	"database/sql"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"tailbox/cdc/checkpoint"
	"tailbox/cdc/relay"
	"tailbox/cdc/relay/relaytest"
	"tailbox/schema/schematest"
)

func TestMain(m *testing.M) { schematest.Main(m) }

// foundRows makes the driver count what a statement found, as the services' pools do.
func foundRows(t *testing.T, dsn string) string {
	t.Helper()
	cfg, err := mysql.ParseDSN(dsn)
	require.NoError(t, err)
	cfg.ClientFoundRows = true
	return cfg.FormatDSN()
}

// setup gives stores of instances on a fresh database.
func setup(t *testing.T) (db *sql.DB, open func(holder string) *checkpoint.Store) {
	t.Helper()
	db = schematest.Open(t, foundRows(t, schematest.DB(t)))
	return db, func(holder string) *checkpoint.Store { return checkpoint.New(db, "default", holder, relaytest.TTL) }
}

func TestStoreKeepsTheContract(t *testing.T) {
	t.Parallel()
	relaytest.StoreContract(t, func(t *testing.T) func(string) relay.Store {
		_, open := setup(t)
		return func(holder string) relay.Store { return open(holder) }
	})
}

// take looks and acquires.
func take(t *testing.T, s *checkpoint.Store) (relay.Lease, relay.Position, error) {
	t.Helper()
	seen, err := s.Look(t.Context())
	require.NoError(t, err)
	return s.Acquire(t.Context(), seen)
}

func TestRelaysOfDifferentNamesDoNotMeet(t *testing.T) {
	t.Parallel()
	db, _ := setup(t)
	one, two := checkpoint.New(db, "one", "test", time.Second), checkpoint.New(db, "two", "test", time.Second)
	lease, _, err := take(t, one)
	require.NoError(t, err)
	_, _, err = take(t, two)
	require.NoError(t, err)
	require.NoError(t, one.Save(t.Context(), lease.Epoch, relay.Position{File: "f", Pos: 4}, "e"))
	_, from, err := take(t, two)
	require.NoError(t, err)
	require.True(t, from.IsZero())
}

func TestADeletedRowIsMissed(t *testing.T) {
	t.Parallel()
	db, open := setup(t)
	s := open("a")
	lease, _, err := take(t, s)
	require.NoError(t, err)
	require.NoError(t, s.Announce(t.Context(), 1, "streaming"))
	_, err = db.ExecContext(t.Context(), "DELETE FROM relay_checkpoint")
	require.NoError(t, err)
	for what, call := range map[string]func() error{
		"look":  func() error { _, err := open("b").Look(t.Context()); return err },
		"renew": func() error { return s.Renew(t.Context(), lease.Epoch) },
		"save":  func() error { return s.Save(t.Context(), lease.Epoch, relay.Position{File: "f", Pos: 4}, "e") },
	} {
		var halt *relay.Halt
		require.ErrorAs(t, call(), &halt, what)
		require.Equal(t, relay.CheckpointGone, halt.Reason)
		require.ErrorContains(t, halt, "INSERT INTO relay_checkpoint (relay, holder, epoch) VALUES ('default', '', 0)")
	}
	_, err = db.ExecContext(t.Context(), "INSERT INTO relay_checkpoint (relay, holder, epoch) VALUES ('default', '', 0)")
	require.NoError(t, err)
	_, from, err := take(t, s)
	require.NoError(t, err)
	require.True(t, from.IsZero())
}

// TestASaveThatComesLateDoesNotTakeThePlaceBack: later saves of the same epoch have been applied when it arrives.
func TestASaveThatComesLateDoesNotTakeThePlaceBack(t *testing.T) {
	t.Parallel()
	db, open := setup(t)
	s := open("a")
	lease, _, err := take(t, s)
	require.NoError(t, err)
	require.NoError(t, s.Save(t.Context(), lease.Epoch, relay.Position{File: "f", Pos: 1}, "e"))
	require.NoError(t, s.Save(t.Context(), lease.Epoch, relay.Position{File: "f", Pos: 2}, "e"))
	_, err = db.ExecContext(t.Context(), "UPDATE relay_checkpoint SET saves = saves + 5")
	require.NoError(t, err)
	require.ErrorIs(t, s.Save(t.Context(), lease.Epoch, relay.Position{File: "f", Pos: 1}, "e"), relay.ErrFenced)
	_, from, err := take(t, s)
	require.NoError(t, err)
	require.Equal(t, uint64(2), from.Pos)
}

// TestAnEventOfAnyIDIsPassed: what is in quarantine can have an id that is longer than the column.
func TestAnEventOfAnyIDIsPassed(t *testing.T) {
	t.Parallel()
	_, open := setup(t)
	s := open("a")
	lease, _, err := take(t, s)
	require.NoError(t, err)
	require.NoError(t, s.Save(t.Context(), lease.Epoch, relay.Position{File: "f", Pos: 1}, strings.Repeat("é", 200_000)))
}

func TestMembersAreThoseThatLive(t *testing.T) {
	t.Parallel()
	db, open := setup(t)
	require.NoError(t, open("a").Announce(t.Context(), 7, "streaming"))
	require.NoError(t, open("b").Announce(t.Context(), 8, "standby"))
	require.NoError(t, open("c").Announce(t.Context(), 9, "standby"))
	require.NoError(t, open("c").Announce(t.Context(), 9, "stopped"))
	_, err := db.ExecContext(t.Context(), "UPDATE relay_member SET seen_at = seen_at - INTERVAL 1 HOUR WHERE member = 'b'")
	require.NoError(t, err)
	members, err := open("a").Members(t.Context())
	require.NoError(t, err)
	require.Len(t, members, 1)
	require.Equal(t, "a", members[0].Name)
	require.Equal(t, uint32(7), members[0].ServerID)
	require.Equal(t, "streaming", members[0].State)
}

func TestAGarbledRowHaltsAndSaysWhatMendsIt(t *testing.T) {
	t.Parallel()
	db, open := setup(t)
	store := open("a")
	lease, _, err := take(t, store)
	require.NoError(t, err)
	for _, garble := range []string{
		"UPDATE relay_checkpoint SET position = REPLACE(position, '4711', '4712')",
		"UPDATE relay_checkpoint SET position = 'x', crc32 = CRC32('x')",
		`UPDATE relay_checkpoint SET position = '{"format":9}', crc32 = CRC32('{"format":9}')`,
		"UPDATE relay_checkpoint SET crc32 = NULL",
	} {
		require.NoError(t, store.Save(t.Context(), lease.Epoch, relay.Position{File: "f", Pos: 4711}, "e"))
		_, err = db.ExecContext(t.Context(), garble)
		require.NoError(t, err)
		lease, _, err = take(t, store)
		var halt *relay.Halt
		require.ErrorAs(t, err, &halt, garble)
		require.Equal(t, relay.CheckpointBad, halt.Reason)
		require.ErrorContains(t, err, "position to NULL")
		require.NoError(t, store.Renew(t.Context(), lease.Epoch), "the lease is ours all the same, so that the place can be set")
	}
}
