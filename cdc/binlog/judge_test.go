package binlog_test

import (
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"tailbox/cdc/binlog"
	"tailbox/cdc/relay"
	"tailbox/deploy/faults"
	"tailbox/schema"
	"tailbox/schema/schematest"
)

// TestWhatCannotBeReadHaltsAtTheThirdTry flips a bit of a large row on its way, which the checksum of its event tells; a link
// that is cut at the same byte again and again is no reason to halt.
func TestWhatCannotBeReadHaltsAtTheThirdTry(t *testing.T) {
	t.Parallel()
	b := setup(t)
	proxy, err := faults.New(schematest.Servers(t).MySQL.Addr())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, proxy.Close()) })
	server, err := mysql.ParseDSN(b.dsn)
	require.NoError(t, err)
	server.Addr = proxy.Addr()
	r := binlog.New(binlog.Config{Server: server, DB: b.db, Start: binlog.StartLatest, Fence: unfenced,
		Outbox: binlog.Table{Schema: server.DBName, Name: "outbox"}, Own: []binlog.Table{{Schema: server.DBName, Name: "relay_checkpoint"}}})
	r.Begin(relay.Position{})
	b.startLatest(r)
	large := schematest.Event(func(e *schema.Event) { e.Payload = []byte(`"` + strings.Repeat("x", 1<<20-2) + `"`) })
	require.NoError(t, schema.Insert(t.Context(), b.db, large))

	stream := func() error {
		return r.Stream(t.Context(), func(row relay.Row) error {
			if row.Event.ID == large.ID {
				return errEnough
			}
			return nil
		})
	}
	halt := (*relay.Halt)(nil)
	const inside = 600 << 10 // far behind all that else is on the way, whatever other tests write
	proxy.CutAfter(faults.ToClient, inside)
	for range 5 {
		err := stream()
		require.NotErrorIs(t, err, errEnough)
		require.NotErrorAs(t, err, &halt)
	}
	proxy.CutAfter(faults.ToClient, -1)

	proxy.Flip(faults.ToClient, inside)
	for range 2 {
		err := stream()
		require.NotErrorIs(t, err, errEnough)
		require.NotErrorAs(t, err, &halt)
	}
	err = stream()
	require.ErrorAs(t, err, &halt)
	require.Equal(t, relay.SourceIncident, halt.Reason)
	require.ErrorContains(t, err, "mysqlbinlog --start-position=")
	require.NotContains(t, err.Error(), "xxxx", "no payload")

	proxy.Flip(faults.ToClient, -1)
	require.ErrorIs(t, stream(), errEnough)
}
