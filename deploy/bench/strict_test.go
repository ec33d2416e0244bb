package bench_test

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"tailbox/deploy/mysql"
	"tailbox/deploy/services"
	"tailbox/schema"
)

// BenchmarkStrictOrder tells what STRICT_ORDER costs a relay that drains a backlog: nothing to speak of where each event has an
// aggregate of its own, and the whole window where all are of one, since then each waits for the confirm of the one before.
// Off and on are interleaved, medians.
func BenchmarkStrictOrder(b *testing.B) {
	const pairs = 3
	servers := startServers(b)
	bin := b.TempDir()
	require.NoError(b, services.Build(b.Context(), filepath.Join("..", ".."), bin))
	ch := bindQueue(b, servers.Rabbit.URL("/"), "quorum")
	db, err := sql.Open("mysql", servers.MySQL.DSN(mysql.Database))
	require.NoError(b, err)
	b.Cleanup(func() { _ = db.Close() })
	_, err = db.ExecContext(b.Context(), "CREATE TABLE outbox_hot LIKE outbox")
	require.NoError(b, err)
	_, err = db.ExecContext(b.Context(), "GRANT SELECT, DELETE ON outbox_hot TO 'cdc'@'%'")
	require.NoError(b, err)

	for _, load := range []struct {
		name, table string
		events      int
		event       func(i int) schema.Event
	}{
		{"distinct", "outbox", 30000, benchEvent},
		{"hot", "outbox_hot", 6000, hotEvent},
	} {
		fillOutbox(b, servers, load.table, load.events, load.event)
		b.Run(load.name, func(b *testing.B) {
			var off, on []figures
			for pair := range pairs {
				for _, strict := range []bool{false, true} {
					f := runRelay(b, servers, drained{
						bin: bin, name: fmt.Sprintf("strict-%s-%t-%d", load.name, strict, pair), events: load.events, measured: middleOf(load.events),
						env: []string{"OUTBOX_TABLE=" + load.table, fmt.Sprintf("STRICT_ORDER=%t", strict)},
					})
					if strict {
						on = append(on, f)
					} else {
						off = append(off, f)
					}
					_, err := ch.QueuePurge("bench", false)
					require.NoError(b, err)
				}
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(off).PerSecond, "off-msg/s")
			b.ReportMetric(median(on).PerSecond, "on-msg/s")
			b.ReportMetric(median(on).PerSecond/median(off).PerSecond, "ratio")
			b.ReportMetric(float64(median(off).CPU.Nanoseconds())/1000, "off-cpu-µs/msg")
			b.ReportMetric(float64(median(on).CPU.Nanoseconds())/1000, "on-cpu-µs/msg")
		})
	}
}

// hotEvent is the i-th event of the one aggregate that there is.
func hotEvent(i int) schema.Event {
	e := benchEvent(i)
	e.AggregateID, e.AggregateVersion = "the only one", uint64(i+1)
	return e
}
