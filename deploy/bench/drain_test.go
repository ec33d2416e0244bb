package bench_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"tailbox/deploy/mysql"
	"tailbox/deploy/services"
	"tailbox/deploy/stack"
	"tailbox/schema"
)

const (
	benchWindow   = 1000
	benchExchange = "outbox.events"
	benchEvents   = 60000
	benchPairs    = 5
)

// BenchmarkDrain compares, on one broker in one run, a plain amqp091-go publisher that sends from memory with the relay that
// drains the same number of committed outbox rows from the binlog: five pairs, interleaved, medians.
func BenchmarkDrain(b *testing.B) {
	for _, kind := range []string{"quorum", "classic"} {
		b.Run(kind, func(b *testing.B) { drain(b, kind) })
	}
}

func drain(b *testing.B, kind string) {
	servers := startServers(b)
	bin := b.TempDir()
	require.NoError(b, services.Build(b.Context(), filepath.Join("..", ".."), bin))
	fillOutbox(b, servers, "outbox", benchEvents, benchEvent)
	ch := bindQueue(b, servers.Rabbit.URL("/"), kind)

	var plain, relay []figures
	for pair := range benchPairs {
		before := serversCPU(b, servers)
		plain = append(plain, runPublisher(b, servers.Rabbit.URL("/"), benchEvents))
		plain[pair].Servers = (serversCPU(b, servers) - before) / benchEvents
		_, err := ch.QueuePurge("bench", false)
		require.NoError(b, err)
		relay = append(relay, runRelay(b, servers, drained{bin: bin, name: fmt.Sprintf("bench-%d", pair), events: benchEvents, from: benchEvents / 10}))
		_, err = ch.QueuePurge("bench", false)
		require.NoError(b, err)
	}
	p, r := median(plain), median(relay)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(p.PerSecond, "plain-msg/s")
	b.ReportMetric(r.PerSecond, "relay-msg/s")
	b.ReportMetric(r.PerSecond/p.PerSecond, "ratio")
	b.ReportMetric(medianRatio(relay, plain), "pair-ratio")
	b.ReportMetric(float64(p.CPU.Nanoseconds())/1000, "plain-cpu-µs/msg")
	b.ReportMetric(float64(r.CPU.Nanoseconds())/1000, "relay-cpu-µs/msg")
	b.ReportMetric(float64(p.Servers.Nanoseconds())/1000, "plain-servers-cpu-µs/msg")
	b.ReportMetric(float64(r.Servers.Nanoseconds())/1000, "relay-servers-cpu-µs/msg")
	b.ReportMetric(float64(p.PeakBytes)/(1<<20), "plain-MiB")
	b.ReportMetric(float64(r.PeakBytes)/(1<<20), "relay-MiB")
}

// fillOutbox commits events into a table, a hundred to a transaction.
func fillOutbox(b *testing.B, servers *stack.Stack, table string, count int, event func(i int) schema.Event) {
	b.Helper()
	db, err := sql.Open("mysql", servers.MySQL.DSN(mysql.Database))
	require.NoError(b, err)
	defer db.Close()
	for i := 0; i < count; i += 100 {
		var events []schema.Event
		for j := range 100 {
			events = append(events, event(i+j))
		}
		require.NoError(b, schema.Insert(b.Context(), autocommit{db, table}, events...))
	}
}

// autocommit lets one statement be a transaction, and inserts into a table of any name.
type autocommit struct {
	db    *sql.DB
	table string
}

func (a autocommit) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	return a.db.ExecContext(ctx, strings.Replace(query, "INTO outbox ", "INTO "+a.table+" ", 1), args...)
}

func bindQueue(b *testing.B, url, kind string) *amqp.Channel {
	b.Helper()
	conn, err := amqp.Dial(url)
	require.NoError(b, err)
	b.Cleanup(func() { _ = conn.Close() })
	ch, err := conn.Channel()
	require.NoError(b, err)
	require.NoError(b, ch.ExchangeDeclare(benchExchange, "topic", true, false, false, false, nil))
	_, err = ch.QueueDeclare("bench", true, false, false, false, amqp.Table{"x-queue-type": kind})
	require.NoError(b, err)
	require.NoError(b, ch.QueueBind("bench", "customer.*", benchExchange, false, nil))
	return ch
}

// runPublisher runs a publisher in a process of its own: the plain one, unless the environment says otherwise.
func runPublisher(b *testing.B, url string, count int, env ...string) (f figures) {
	b.Helper()
	self, err := os.Executable()
	require.NoError(b, err)
	cmd := exec.CommandContext(b.Context(), self)
	cmd.Env = append(append(os.Environ(), envPublish+"="+url, envCount+"="+strconv.Itoa(count)), env...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	require.NoError(b, err)
	require.NoError(b, json.Unmarshal(out, &f))
	return f
}

// drained is one drain of a relay.
type drained struct {
	bin, name string
	events    int      // rows that there are
	env       []string // of the relay, further variables
	watchers  int      // open pages meanwhile
	from      int      // rows that are drained before the measure begins
}

// runRelay starts a relay under a fresh name, which drains all rows from the beginning of the binlog, and measures it from
// those rows on to the end.
func runRelay(b *testing.B, servers *stack.Stack, d drained) figures {
	b.Helper()
	addr, err := services.FreeAddr(b.Context())
	require.NoError(b, err)
	cdc := services.New(services.Config{
		Name: "cdc", Bin: d.bin, Stack: servers, Addr: addr, Output: os.Stderr,
		Env: append([]string{"LOG_LEVEL=warn", "START=earliest", "RETENTION=off", "RELAY_NAME=" + d.name, fmt.Sprintf("WINDOW=%d", benchWindow)}, d.env...),
	})
	require.NoError(b, cdc.Start())
	defer func() { require.NoError(b, cdc.Process().Stop(context.Background())) }()
	defer watch(b, cdc, d.watchers)()

	from, fromCPU, fromAt := sample(b, cdc, d.from)
	before := serversCPU(b, servers)
	to, toCPU, toAt := sample(b, cdc, d.events)
	return figures{
		Servers:   (serversCPU(b, servers) - before) / time.Duration(to-from),
		PerSecond: float64(to-from) / toAt.Sub(fromAt).Seconds(),
		CPU:       (toCPU - fromCPU) / time.Duration(to-from),
		PeakBytes: processPeak(b, cdc.Process().Pid()),
	}
}

// sample waits until the relay has so many events confirmed.
func sample(b *testing.B, cdc *services.Service, atLeast int) (confirmed int, used time.Duration, at time.Time) {
	b.Helper()
	var p struct{ Totals struct{ Confirmed int } }
	require.Eventually(b, func() bool {
		answer, err := http.Get(cdc.URL("/position"))
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		if json.NewDecoder(answer.Body).Decode(&p) != nil {
			return false
		}
		at, used = time.Now(), processCPU(b, cdc.Process().Pid())
		return p.Totals.Confirmed >= atLeast
	}, 5*time.Minute, 50*time.Millisecond) // answering costs the relay CPU
	return p.Totals.Confirmed, used, at
}

// serversCPU is what the broker and the database have used.
func serversCPU(b *testing.B, servers *stack.Stack) time.Duration {
	return processCPU(b, servers.Rabbit.Pid()) + processCPU(b, servers.MySQL.Pid())
}

// processCPU is what a process has used, from /proc, to a hundredth of a second.
func processCPU(b *testing.B, pid int) time.Duration {
	b.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	require.NoError(b, err)
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+2:]))
	user, err := strconv.Atoi(fields[11])
	require.NoError(b, err)
	system, err := strconv.Atoi(fields[12])
	require.NoError(b, err)
	return time.Duration(user+system) * 10 * time.Millisecond
}

func processPeak(b *testing.B, pid int) int64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	require.NoError(b, err)
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(rest), "kB")))
			require.NoError(b, err)
			return int64(kib) << 10
		}
	}
	b.Fatal("no VmHWM")
	return 0
}

// medianRatio is the median of the ratios within the pairs. Both of a pair ran right after each other, so it tells more than the
// ratio of the medians where the machine's load changes.
func medianRatio(of, to []figures) float64 {
	var list []float64
	for i := range of {
		list = append(list, of[i].PerSecond/to[i].PerSecond)
	}
	slices.Sort(list)
	return list[len(list)/2]
}

// median takes each figure's own median.
func median(runs []figures) figures {
	middle := func(get func(figures) float64) float64 {
		var list []float64
		for _, f := range runs {
			list = append(list, get(f))
		}
		slices.Sort(list)
		return list[len(list)/2]
	}
	return figures{
		PerSecond: middle(func(f figures) float64 { return f.PerSecond }),
		CPU:       time.Duration(middle(func(f figures) float64 { return float64(f.CPU) })),
		PeakBytes: int64(middle(func(f figures) float64 { return float64(f.PeakBytes) })),
		Servers:   time.Duration(middle(func(f figures) float64 { return float64(f.Servers) })),
		Writes:    middle(func(f figures) float64 { return f.Writes }),
	}
}
