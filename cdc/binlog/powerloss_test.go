package binlog_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"tailbox/cdc/relay"
	"tailbox/deploy/stack"
	"tailbox/schema/schematest"
)

// TestABinlogThatLostItsEndIsNoSilentGap: with another sync_binlog than 1 a power failure can take the end of the binlog and
// leave the rows in the table. A kill takes nothing, so the test cuts the file.
func TestABinlogThatLostItsEndIsNoSilentGap(t *testing.T) {
	t.Parallel()
	modes := map[string][]string{"with GTIDs": nil}
	mysql := schematest.Servers(t).MySQL.Flavor() == stack.FlavorMySQL
	if mysql {
		modes["without GTIDs"] = []string{"--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"}
	}
	for name, options := range modes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, server := privateServer(t, options...)
			kept := b.confirmed(5)
			want := b.history(100)
			sent := b.confirmed(5)
			files := b.binlogs()
			require.NoError(t, server.Kill())
			require.NoError(t, os.Truncate(filepath.Join(server.Data(), files[len(files)-1]), int64(kept.Pos)))
			require.NoError(t, server.Start(t.Context()))

			halt := b.halted(sent)
			require.Equal(t, relay.SourceBehind, halt.Reason, "what was sent is no longer in the binlog: %v", halt)
			if !mysql || options != nil {
				return // these servers do not know that they lost what nobody has read
			}
			halt = b.halted(kept)
			require.Equal(t, relay.BinlogPurged, halt.Reason, "what was not sent is no longer in the binlog: %v", halt)
			rows, _ := b.repaired(kept)
			inOrder(t, want, rows)
		})
	}
}
