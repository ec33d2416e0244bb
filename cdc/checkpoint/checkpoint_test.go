package checkpoint_test

import (
	"testing"

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

func TestStoreKeepsTheContract(t *testing.T) {
	t.Parallel()
	relaytest.CheckpointsContract(t, func(t *testing.T) func() relay.Checkpoints {
		db := schematest.Open(t, foundRows(t, schematest.DB(t)))
		return func() relay.Checkpoints { return checkpoint.New(db, "default", "test") }
	})
}

func TestRelaysOfDifferentNamesDoNotMeet(t *testing.T) {
	t.Parallel()
	db := schematest.Open(t, foundRows(t, schematest.DB(t)))
	one, two := checkpoint.New(db, "one", "test"), checkpoint.New(db, "two", "test")
	epoch, _, err := one.Acquire(t.Context())
	require.NoError(t, err)
	_, _, err = two.Acquire(t.Context())
	require.NoError(t, err)
	require.NoError(t, one.Save(t.Context(), epoch, relay.Position{File: "f", Pos: 4}, "e"))
	_, from, err := two.Acquire(t.Context())
	require.NoError(t, err)
	require.True(t, from.IsZero())
}

func TestAGarbledRowHaltsAndSaysWhatMendsIt(t *testing.T) {
	t.Parallel()
	db := schematest.Open(t, foundRows(t, schematest.DB(t)))
	store := checkpoint.New(db, "default", "test")
	epoch, _, err := store.Acquire(t.Context())
	require.NoError(t, err)
	for _, garble := range []string{
		"UPDATE relay_checkpoint SET position = REPLACE(position, '4711', '4712')",
		"UPDATE relay_checkpoint SET position = 'x', crc32 = CRC32('x')",
		`UPDATE relay_checkpoint SET position = '{"format":9}', crc32 = CRC32('{"format":9}')`,
		"UPDATE relay_checkpoint SET crc32 = NULL",
	} {
		require.NoError(t, store.Save(t.Context(), epoch, relay.Position{File: "f", Pos: 4711}, "e"))
		_, err = db.ExecContext(t.Context(), garble)
		require.NoError(t, err)
		_, _, err = store.Acquire(t.Context())
		var halt *relay.Halt
		require.ErrorAs(t, err, &halt, garble)
		require.Equal(t, relay.CheckpointBad, halt.Reason)
		require.ErrorContains(t, err, "set its position to NULL")
	}
}
