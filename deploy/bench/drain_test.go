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

	"tailbox/cdc/relay"
	"tailbox/deploy/mysql"
	"tailbox/deploy/services"
	"tailbox/deploy/stack"
	"tailbox/schema"
)

const (
	benchExchange = "outbox.events"
	benchEvents   = 60000
	benchPairs    = 5
)

// benchWindow is how many messages the relay and the plain publisher have under way, as WINDOW says; its default is the relay's.
var benchWindow = func() int {
	text, set := os.LookupEnv("WINDOW")
	if !set {
		return relay.DefaultWindow
	}
	n, err := strconv.Atoi(text)
	if err != nil || n <= 0 {
		panic(fmt.Sprintf("WINDOW=%q: give a number of messages above 0", text))
	}
	return n
}()

// BenchmarkDrain compares, on one broker in one run, a plain amqp091-go publisher that sends from memory with the relay that
// drains the same number of committed outbox rows from the binlog, and sends the same messages: five pairs, interleaved, medians.
// The queue is not read meanwhile.
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

	env := []string{
		envPosition + "=" + beforeNumber(b, servers.MySQL),
		fmt.Sprintf("%s=%d,%d", envServers, servers.Rabbit.Pid(), servers.MySQL.Pid()),
	}

	var plain, relayed []figures
	for pair := range benchPairs {
		plain = append(plain, runPublisher(b, servers.Rabbit.URL("/"), benchEvents, env...))
		first := oldest(b, ch)
		_, err := ch.QueuePurge("bench", false)
		require.NoError(b, err)
		relayed = append(relayed, runRelay(b, servers, drained{bin: bin, name: fmt.Sprintf("bench-%d", pair), events: benchEvents, measured: middleOf(benchEvents)}))
		require.Equal(b, first, oldest(b, ch), "both send the same messages")
		_, err = ch.QueuePurge("bench", false)
		require.NoError(b, err)
	}
	p, r := median(plain), median(relayed)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(p.PerSecond, "plain-msg/s")
	b.ReportMetric(r.PerSecond, "relay-msg/s")
	b.ReportMetric(r.PerSecond/p.PerSecond, "ratio")
	b.ReportMetric(medianRatio(relayed, plain), "pair-ratio")
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

// beforeNumber is what stands before a transaction's number in its position.
func beforeNumber(b *testing.B, server *stack.MySQL) (text string) {
	b.Helper()
	form := "CONCAT(@@server_uuid, ':')"
	if server.Flavor() == stack.FlavorMariaDB {
		form = "CONCAT('0-', @@server_id, '-')"
	}
	db, err := sql.Open("mysql", server.DSN(""))
	require.NoError(b, err)
	defer db.Close()
	require.NoError(b, db.QueryRowContext(b.Context(), "SELECT "+form).Scan(&text))
	return text
}

// oldest takes the first message out of the queue and returns what of it is the sender's, without the digits of its position.
func oldest(b *testing.B, ch *amqp.Channel) amqp.Delivery {
	b.Helper()
	m, ok, err := ch.Get("bench", true)
	require.NoError(b, err)
	require.True(b, ok, "there is no message")
	position, _ := m.Headers[schema.HeaderSourcePosition].(string)
	m.Headers[schema.HeaderSourcePosition] = strings.TrimRight(position, "0123456789")
	m.Acknowledger, m.DeliveryTag, m.MessageCount = nil, 0, 0
	return m
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
	env       []string // of the relay, further variables
	watchers  int      // open pages meanwhile
	events    int      // that there are
	measured  middle   // of them
}

// runRelay starts a relay under a fresh name, which drains all rows from the beginning of the binlog, and measures the middle.
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

	began := sample(b, servers, cdc, d.measured.from)
	f := sample(b, servers, cdc, d.measured.to).since(began)
	f.PeakBytes = processPeak(b, cdc.Process().Pid())
	sample(b, servers, cdc, d.events)
	return f
}

// sample waits until the relay has so many events confirmed.
func sample(b *testing.B, servers *stack.Stack, cdc *services.Service, atLeast int) (u used) {
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
		u = used{
			events: p.Totals.Confirmed, at: time.Now(), cpu: processCPU(b, cdc.Process().Pid()),
			servers: processCPU(b, servers.Rabbit.Pid()) + processCPU(b, servers.MySQL.Pid()),
		}
		return u.events >= atLeast
	}, 5*time.Minute, 50*time.Millisecond) // answering costs the relay CPU
	return u
}

// processCPU is what a process of this benchmark has used.
func processCPU(b *testing.B, pid int) time.Duration {
	b.Helper()
	spent, err := spentBy(strconv.Itoa(pid))
	require.NoError(b, err)
	return spent
}

// spentBy is what a process has used, user and system, from /proc, to a hundredth of a second.
func spentBy(pid string) (time.Duration, error) {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+2:]))
	user, err := strconv.Atoi(fields[11])
	if err != nil {
		return 0, err
	}
	system, err := strconv.Atoi(fields[12])
	if err != nil {
		return 0, err
	}
	return time.Duration(user+system) * 10 * time.Millisecond, nil
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
