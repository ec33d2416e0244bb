package bench_test

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/deploy/mysql"
	"tailbox/deploy/services"
	"tailbox/deploy/stack"
	"tailbox/schema"
)

const (
	retentionPairs  = 3
	retentionEvents = 20000
	writers         = 4
)

// BenchmarkRetention writes events as fast as four sessions can while the relay reads them, with RETENTION=off and with
// RETENTION=0, by turns in one run, and compares how many events are confirmed in a second from the first commit to the last
// confirm, how far the relay is behind, and how many rows the table has had at the most.
func BenchmarkRetention(b *testing.B) {
	servers := startServers(b)
	bin := b.TempDir()
	require.NoError(b, services.Build(b.Context(), filepath.Join("..", ".."), bin))
	ch := bindQueue(b, servers.Rabbit.URL("/"), "quorum")
	var off, zero []live
	for pair := range retentionPairs {
		off = append(off, runLive(b, servers, bin, fmt.Sprintf("off-%d", pair), "off"))
		zero = append(zero, runLive(b, servers, bin, fmt.Sprintf("zero-%d", pair), "0"))
		_, err := ch.QueuePurge("bench", false)
		require.NoError(b, err)
	}
	b.ReportMetric(0, "ns/op")
	for name, runs := range map[string][]live{"off": off, "0": zero} {
		slices.SortFunc(runs, func(a, b live) int { return int(a.perSecond - b.perSecond) })
		m := runs[len(runs)/2]
		b.ReportMetric(m.perSecond, name+"-msg/s")
		b.ReportMetric(m.lag.Seconds()*1000, name+"-lag-ms")
		b.ReportMetric(float64(m.rows), name+"-most-rows")
	}
	b.ReportMetric(zero[len(zero)/2].perSecond/off[len(off)/2].perSecond, "ratio")
}

// live is what one run under load showed.
type live struct {
	perSecond float64
	lag       time.Duration // from the last commit to the last confirm
	rows      int           // in the table, at the most
}

func runLive(b *testing.B, servers *stack.Stack, bin, name, keep string) live {
	b.Helper()
	db, err := sql.Open("mysql", servers.MySQL.DSN(mysql.Database))
	require.NoError(b, err)
	defer db.Close()
	_, err = db.ExecContext(b.Context(), "DELETE FROM outbox")
	require.NoError(b, err)
	addr, err := services.FreeAddr(b.Context())
	require.NoError(b, err)
	cdc := services.New(services.Config{Name: "cdc", Bin: bin, Stack: servers, Addr: addr, Output: os.Stderr,
		Env: []string{"LOG_LEVEL=warn", "START=latest", "RELAY_NAME=" + name, "RETENTION=" + keep}})
	require.NoError(b, cdc.Start())
	defer func() { require.NoError(b, cdc.Process().Stop(context.Background())) }()
	require.NoError(b, cdc.Ready(b.Context()))
	streaming(b, cdc)

	began := time.Now()
	var group sync.WaitGroup
	for range writers {
		group.Go(func() {
			for i := 0; i < retentionEvents/writers; i += 10 {
				var events []schema.Event
				for j := range 10 {
					e := benchEvent(i + j)
					e.ID, e.CreatedAt = "", time.Time{}
					events = append(events, e)
				}
				if err := schema.Insert(b.Context(), db, events...); err != nil {
					b.Error(err)
				}
			}
		})
	}
	written := make(chan struct{})
	go func() { group.Wait(); close(written) }()
	run := live{}
	for done := false; !done; {
		select {
		case <-written:
			done = true
		case <-time.After(50 * time.Millisecond):
			run.rows = max(run.rows, count(b, db))
		}
	}
	committed := time.Now()
	at := sample(b, servers, cdc, retentionEvents).at
	run.perSecond, run.lag = retentionEvents/at.Sub(began).Seconds(), at.Sub(committed)
	if keep == "0" {
		require.Eventually(b, func() bool { return count(b, db) == 0 }, time.Minute, 50*time.Millisecond, "an empty table")
	}
	return run
}

func count(b *testing.B, db *sql.DB) (n int) {
	b.Helper()
	require.NoError(b, db.QueryRowContext(b.Context(), "SELECT COUNT(*) FROM outbox").Scan(&n))
	return n
}

// streaming waits until the relay has a place.
func streaming(b *testing.B, cdc *services.Service) {
	b.Helper()
	require.Eventually(b, func() bool {
		answer, err := http.Get(cdc.URL("/position"))
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		var p struct {
			State      string
			Checkpoint struct{ File string }
		}
		return json.NewDecoder(answer.Body).Decode(&p) == nil && p.State == "streaming" && p.Checkpoint.File != ""
	}, time.Minute, 20*time.Millisecond)
}
