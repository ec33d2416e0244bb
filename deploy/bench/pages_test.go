package bench_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/deploy/services"
	"tailbox/deploy/stack"
)

// BenchmarkOpenPages compares the relay draining a backlog with nobody looking on and with 60 open pages, each of which gets
// the history once and everything else each second, measured from the half on, when all are open: five pairs, interleaved,
// medians of each and of the pairs' ratios. The pages' readers run on the same cores, so what they cost is in the figures,
// too. Then it tells what the pages cost a relay that has nothing else to do.
func BenchmarkOpenPages(b *testing.B) {
	const pages = 60
	servers := startServers(b)
	bin := b.TempDir()
	require.NoError(b, services.Build(b.Context(), filepath.Join("..", ".."), bin))
	fillOutbox(b, servers, "outbox", benchEvents, benchEvent)
	ch := bindQueue(b, servers.Rabbit.URL("/"), "quorum")

	runs := map[int][]figures{}
	var ratios []float64
	for pair := range benchPairs {
		order := []int{0, pages}
		if pair%2 == 1 {
			slices.Reverse(order)
		}
		for _, n := range order {
			runs[n] = append(runs[n], runRelay(b, servers, drained{bin: bin, name: fmt.Sprintf("pages-%d-%d", pair, n), events: benchEvents, watchers: n, measured: middle{benchEvents / 2, benchEvents - benchEvents/10}}))
			_, err := ch.QueuePurge("bench", false)
			require.NoError(b, err)
		}
		ratios = append(ratios, runs[pages][pair].PerSecond/runs[0][pair].PerSecond)
	}
	slices.Sort(ratios)
	alone, watched := median(runs[0]), median(runs[pages])
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(alone.PerSecond, "alone-msg/s")
	b.ReportMetric(watched.PerSecond, "watched-msg/s")
	b.ReportMetric(ratios[len(ratios)/2], "ratio")
	b.ReportMetric(float64(watched.CPU)/float64(alone.CPU), "cpu-ratio")
	b.ReportMetric(idleCost(b, servers, bin, pages), "idle-ms-cpu/s")
}

// idleCost is what so many pages cost an idle relay, in milliseconds of CPU each second.
func idleCost(b *testing.B, servers *stack.Stack, bin string, pages int) float64 {
	b.Helper()
	addr, err := services.FreeAddr(b.Context())
	require.NoError(b, err)

	cdc := services.New(services.Config{Name: "cdc", Bin: bin, Stack: servers, Addr: addr, Output: os.Stderr,
		Env: []string{"LOG_LEVEL=warn", "START=latest", "RELAY_NAME=idle"}})
	require.NoError(b, cdc.Start())
	defer func() { require.NoError(b, cdc.Process().Stop(context.Background())) }()
	require.NoError(b, cdc.Ready(b.Context()))
	const during, rounds = 5 * time.Second, 3
	used := func() time.Duration {
		before := processCPU(b, cdc.Process().Pid())
		<-time.After(during) // the measure is the time
		return processCPU(b, cdc.Process().Pid()) - before
	}
	var more time.Duration
	for range rounds {
		more -= used()
		closeAll := watch(b, cdc, pages)
		more += used()
		closeAll()
	}
	return float64(more.Microseconds()) / 1000 / (rounds * during.Seconds())
}

// watch opens pages as browsers do, and returns when all have their first frame. The function it returns closes them.
func watch(b *testing.B, cdc *services.Service, pages int) (closeAll func()) {
	b.Helper()
	ctx, stop := context.WithCancel(context.Background())
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 0}}
	var open, first sync.WaitGroup
	for range pages {
		first.Add(1)
		open.Go(func() { look(ctx, client, cdc, sync.OnceFunc(first.Done)) })
	}
	first.Wait()
	return func() {
		stop()
		open.Wait()
		client.CloseIdleConnections()
	}
}

// look reads the history and then the events until ctx ends, trying until the relay listens.
func look(ctx context.Context, client *http.Client, cdc *services.Service, begun func()) {
	defer begun()
	for _, path := range []string{"/history", "/events"} {
		for ctx.Err() == nil {
			request, err := http.NewRequestWithContext(ctx, http.MethodGet, cdc.URL(path), nil)
			if err != nil {
				return
			}
			answer, err := client.Do(request)
			if err != nil {
				continue
			}
			if path == "/events" {
				begun()
			}
			_, _ = io.Copy(io.Discard, answer.Body) // it ends with ctx
			_ = answer.Body.Close()
			if path == "/history" {
				break
			}
		}
	}
}
