package binlog_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"tailbox/cdc/relay"
	"tailbox/deploy/stack"
	"tailbox/schema/schematest"
)

// TestAChangeOfGTIDModeIsAGapThatIsRepaired: the place of a checkpoint with GTIDs means nothing to a server without, and the other
// way round.
func TestAChangeOfGTIDModeIsAGapThatIsRepaired(t *testing.T) {
	t.Parallel()
	if schematest.Servers(t).MySQL.Flavor() == stack.FlavorMariaDB {
		return // it has GTIDs always
	}
	b := private(t, "--gtid-mode=OFF", "--enforce-gtid-consistency=ON")
	place := b.confirmed(5)
	want := b.history(50)
	for _, modes := range [][]string{{"OFF_PERMISSIVE", "ON_PERMISSIVE", "ON"}, {"ON_PERMISSIVE", "OFF_PERMISSIVE", "OFF"}} {
		for _, mode := range modes {
			b.exec("SET GLOBAL gtid_mode = " + mode)
		}
		halt := b.halted(place)
		require.Equal(t, relay.HistoryReset, halt.Reason)
		require.ErrorContains(t, halt.Err, "gtid_mode was changed")
		rows, _ := b.repaired(place)
		inOrder(t, want, rows)
		place = b.confirmed(5)
		want = b.history(50)
	}
}
