package checkpoint_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"tailbox/cdc/relay"
)

// TestEveryFormThatARowEverHadIsRead: testdata has a row's position as each release has written it. They are never edited, only
// added to.
func TestEveryFormThatARowEverHadIsRead(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/position-*.json")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			db, open := setup(t)
			_, err = open("a").Look(t.Context())
			require.NoError(t, err)
			_, err = db.ExecContext(t.Context(), "UPDATE relay_checkpoint SET position = ?, crc32 = CRC32(?)", text, text)
			require.NoError(t, err)
			_, from, err := take(t, open("a"))
			require.NoError(t, err)
			from.CommittedAt, from.Late = relay.Position{}.CommittedAt, 0 // the first form had none
			require.Equal(t, relay.Position{Flavor: "mysql", ServerUUID: "83e96da8-e8d8-11f1-b3e1-0242ac120002", GTID: true,
				GTIDSet: "83e96da8-e8d8-11f1-b3e1-0242ac120002:1-92", File: "binlog.000002", Pos: 37996,
				SkipRows: 3, SkipGTID: "83e96da8-e8d8-11f1-b3e1-0242ac120002:93"}, from)
		})
	}
}
