package bench_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"tailbox/deploy/services"
)

// BenchmarkTracing drains a backlog whose events carry no trace, without a collector and with one: three pairs, interleaved,
// medians. Off, tracing is a comparison with nil for each row.
func BenchmarkTracing(b *testing.B) {
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }))
	defer collector.Close()
	servers := startServers(b)
	bin := b.TempDir()
	require.NoError(b, services.Build(b.Context(), filepath.Join("..", ".."), bin))
	const events = 30000
	fillOutbox(b, servers, "outbox", events, benchEvent)
	ch := bindQueue(b, servers.Rabbit.URL("/"), "quorum")

	var off, on []figures
	for pair := range 3 {
		for name, env := range map[string][]string{"off": nil, "on": {"OTEL_EXPORTER_OTLP_ENDPOINT=" + collector.URL}} {
			got := runRelay(b, servers, drained{bin: bin, name: fmt.Sprintf("trace-%s-%d", name, pair), events: events, env: env, measured: middleOf(events)})
			_, err := ch.QueuePurge("bench", false)
			require.NoError(b, err)
			if name == "off" {
				off = append(off, got)
			} else {
				on = append(on, got)
			}
		}
	}
	without, with := median(off), median(on)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(with.PerSecond/without.PerSecond, "ratio")
	b.ReportMetric(float64(without.CPU.Nanoseconds())/1000, "off-cpu-µs/msg")
	b.ReportMetric(float64(with.CPU.Nanoseconds())/1000, "on-cpu-µs/msg")
}
