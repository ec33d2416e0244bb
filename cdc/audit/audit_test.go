package audit_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/cdc/audit"
	"tailbox/schema/schematest"
)

func TestMain(m *testing.M) { schematest.Main(m) }

func TestWhatIsAppendedIsListedNewestFirst(t *testing.T) {
	t.Parallel()
	db := schematest.Open(t, schematest.DB(t))
	log, other := audit.New(db, "default"), audit.New(db, "other")
	require.NoError(t, other.Append(t.Context(), audit.Entry{Actor: "somebody else", Action: "pause"}))
	require.NoError(t, log.Append(t.Context(), audit.Entry{Actor: "ada", Action: "pause", Why: "to look", Epoch: 3}))
	require.NoError(t, log.Append(t.Context(), audit.Entry{Actor: "relay", Action: "repair",
		Before: map[string]any{"file": "binlog.000001"}, After: map[string]any{"sent": 7}, Epoch: 4}))

	records, err := log.List(t.Context(), 10)
	require.NoError(t, err)
	require.Len(t, records, 2, "those of another relay are not ours")
	require.Equal(t, []string{"repair", "pause"}, []string{records[0].Action, records[1].Action})
	require.JSONEq(t, `{"file":"binlog.000001"}`, string(records[0].Before))
	require.JSONEq(t, `{"sent":7}`, string(records[0].After))
	require.Nil(t, records[1].Before)
	require.Equal(t, []any{"ada", "to look", uint64(3)}, []any{records[1].Actor, records[1].Why, records[1].Epoch})
	require.WithinDuration(t, time.Now(), records[1].At, 10*time.Second)

	records, err = log.List(t.Context(), 1)
	require.NoError(t, err)
	require.Len(t, records, 1)
	require.Equal(t, "repair", records[0].Action)
}

func TestAnEntryIsKeptExactlyWhenItsTransactionIs(t *testing.T) {
	t.Parallel()
	db := schematest.Open(t, schematest.DB(t))
	log := audit.New(db, "default")
	for _, commit := range []bool{false, true} {
		tx, err := db.BeginTx(t.Context(), nil)
		require.NoError(t, err)
		require.NoError(t, log.AppendIn(t.Context(), tx, audit.Entry{Actor: "ada", Action: "drop"}))
		if commit {
			require.NoError(t, tx.Commit())
		} else {
			require.NoError(t, tx.Rollback())
		}
		records, err := log.List(t.Context(), 10)
		require.NoError(t, err)
		require.Equal(t, commit, len(records) == 1)
	}
}

// A caller can put anything into its headers: no record may be lost for it.
func TestAnEntryThatDoesNotFitIsCutNotLost(t *testing.T) {
	t.Parallel()
	log := audit.New(schematest.Open(t, schematest.DB(t)), "default")
	for _, text := range []string{strings.Repeat("é", 100_000), "\xff\x00broken\xc3", strings.Repeat("𝄞", 40_000)} {
		require.NoError(t, log.Append(t.Context(), audit.Entry{Actor: text, Action: text, Why: text}))
	}
	records, err := log.List(t.Context(), 10)
	require.NoError(t, err)
	require.Len(t, records, 3)
	require.Equal(t, strings.Repeat("é", 127), records[2].Actor)
}
