package console_test

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"tailbox/cdc/console"
	"tailbox/cdc/relay"
	"tailbox/schema"
)

// running is a console that runs, behind a server whose connections have no buffers: who does not read is felt at once.
type running struct {
	*console.Console
	*bundle
	server *http.Server
	client *http.Client
	wires  *wires
	stop   context.CancelFunc
	done   chan error
}

// run runs a console over the bundle behind a server that configure may change.
func (b *bundle) run(t *testing.T, cfg console.Config, configure func(*http.Server)) *running {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	r := &running{Console: console.New(b.view, cfg), bundle: b, stop: stop, done: make(chan error, 1), wires: newWires()}
	r.client = &http.Client{Transport: &http.Transport{DialContext: r.wires.dial}}
	r.server = &http.Server{Handler: r.Handler(prometheus.NewRegistry())}
	if configure != nil {
		configure(r.server)
	}
	served := make(chan error, 1)
	go func() { served <- r.server.Serve(r.wires) }()
	go func() { r.done <- r.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-r.done)
		r.client.CloseIdleConnections()
		_ = r.server.Close()
		require.ErrorIs(t, <-served, http.ErrServerClosed)
	})
	return r
}

// wires is a listener whose connections are pipes.
type wires struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newWires() *wires { return &wires{conns: make(chan net.Conn), done: make(chan struct{})} }

func (w *wires) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case w.conns <- far:
		return near, nil
	case <-w.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (w *wires) Accept() (net.Conn, error) {
	select {
	case conn := <-w.conns:
		return conn, nil
	case <-w.done:
		return nil, net.ErrClosed
	}
}

func (w *wires) Close() error {
	w.once.Do(func() { close(w.done) })
	return nil
}

func (w *wires) Addr() net.Addr { return &net.TCPAddr{} }

// frames opens /events and hands out its events one by one.
type frames struct {
	t    *testing.T
	body io.Closer
	text *bufio.Scanner
}

func (r *running) watch(t *testing.T) *frames {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://relay/events", nil)
	require.NoError(t, err)
	answer, err := r.client.Do(request)
	require.NoError(t, err)
	t.Cleanup(func() { _ = answer.Body.Close() })
	require.Equal(t, http.StatusOK, answer.StatusCode)
	require.Equal(t, "text/event-stream; charset=utf-8", answer.Header.Get("Content-Type"))
	f := &frames{t: t, body: answer.Body, text: bufio.NewScanner(answer.Body)}
	f.text.Buffer(nil, 1<<20)
	return f
}

// next waits for the next event of that name and reads its document; false when the stream has ended.
func (f *frames) next(name string, into any) bool {
	f.t.Helper()
	for f.text.Scan() {
		if f.text.Text() != "event: "+name {
			continue
		}
		require.True(f.t, f.text.Scan())
		data, ok := strings.CutPrefix(f.text.Text(), "data: ")
		require.True(f.t, ok)
		require.NoError(f.t, json.Unmarshal([]byte(data), into))
		return true
	}
	return false
}

// columns is the document of /history.
type columns struct {
	States    []string   `json:"states"`
	At        []float64  `json:"at"`
	State     []int      `json:"state"`
	Confirmed []float64  `json:"confirmed_per_second"`
	P50       []*float64 `json:"latency_p50_seconds"`
	P99       []*float64 `json:"latency_p99_seconds"`
}

// first is the first value of a column, nil when it is null or there is none.
func first(column []*float64) *float64 {
	if len(column) == 0 {
		return nil
	}
	return column[0]
}

func (r *running) history(t *testing.T) (c columns) {
	t.Helper()
	answer := httptest.NewRecorder()
	r.Handler(prometheus.NewRegistry()).ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/history", nil))
	require.NoError(t, json.Unmarshal(answer.Body.Bytes(), &c))
	require.Len(t, c.State, len(c.At))
	require.Len(t, c.Confirmed, len(c.At))
	require.Len(t, c.P50, len(c.At))
	require.IsNonDecreasing(t, c.At) // to the millisecond; a ticker that was held up catches up
	return c
}

func row(id string, committed time.Time) *relay.Row {
	return &relay.Row{Position: "0-1-7", CommittedAt: committed, Event: schema.Event{ID: id, Type: "CustomerCreated",
		AggregateType: "customer", AggregateID: "a-secret-aggregate", Payload: []byte(`{"email":"secret@example.com"}`)}}
}

func TestHistoryKeepsTheLastMinutesAndNoMore(t *testing.T) {
	t.Parallel()
	b := setup()
	b.view.Now = time.Now
	r := b.run(t, console.Config{Interval: 100 * time.Millisecond, Keep: time.Second}, nil)
	watch := r.watch(t)
	for range 15 {
		require.True(t, watch.next("sample", &columns{}))
	}
	require.Len(t, r.history(t).At, 10)
	require.Equal(t, "streaming", r.history(t).States[r.history(t).State[9]])
}

func TestASampleTellsTheLatenciesOfItsIntervalAndNullOfNone(t *testing.T) {
	t.Parallel()
	b := setup()
	b.view.Now = time.Now
	r := b.run(t, console.Config{Interval: 200 * time.Millisecond}, nil)
	watch := r.watch(t)
	var s columns
	near := func(got *float64, want float64) bool { return got != nil && math.Abs(*got-want) <= want/16 }
	for tries := 0; !near(first(s.P50), 0.5) || !near(first(s.P99), 0.99); tries++ {
		require.Less(t, tries, 20, "the percentiles of 1 ms to 1 s were %v and %v", first(s.P50), first(s.P99))
		require.True(t, watch.next("sample", &s))
		at := time.Now()
		for i := range 1000 { // on a busy machine they can fall into two intervals: then it is tried again
			r.Observe(row("e", at.Add(-time.Duration(i+1)*time.Millisecond)), at)
		}
		require.True(t, watch.next("sample", &s))
	}
	require.True(t, watch.next("sample", &s))
	require.Nil(t, s.P50[0], "each interval begins anew")
}

func TestWatchersSeeWhatIsPublishedAndNeverAPayload(t *testing.T) {
	t.Parallel()
	b := setup()
	r := b.run(t, console.Config{Interval: 100 * time.Millisecond}, nil)
	r.Observe(row("first", now.Add(-3*time.Millisecond)), now)

	var news struct {
		Events []map[string]any
	}
	early := r.watch(t)
	require.True(t, early.next("published", &news))
	require.Equal(t, []map[string]any{{"id": "first", "type": "CustomerCreated", "aggregate_type": "customer", "position": "0-1-7",
		"routing_key": "customer.CustomerCreated", "latency_seconds": 0.003, "confirmed_at": now.Format(schema.TimeFormat)}}, news.Events)

	r.Observe(row("second", now), now)
	news.Events = nil
	for len(news.Events) == 0 || news.Events[0]["id"] != "second" {
		require.True(t, early.next("published", &news))
	}
	news.Events = nil
	require.True(t, r.watch(t).next("published", &news))
	require.Len(t, news.Events, 2, "who comes later is told what went before")
}

func TestUnderLoadASampleOfTheEventsIsShown(t *testing.T) {
	t.Parallel()
	const events = 100000
	r := setup().run(t, console.Config{Interval: 50 * time.Millisecond}, nil)
	watch := r.watch(t)
	go func() { // who does not read meanwhile is dropped
		for i := range events {
			r.Observe(row("e", now), now.Add(time.Duration(i)*time.Microsecond))
		}
	}()
	for told, frames := 0, 1; told < events; frames++ {
		var news struct {
			Events  []map[string]any
			LeftOut int `json:"left_out"`
		}
		require.True(t, watch.next("published", &news))
		require.LessOrEqual(t, len(news.Events), 22, "20 at once, then one each 50 ms of these 100 ms")
		told += len(news.Events) + news.LeftOut
		require.LessOrEqual(t, told, events+frames, "the one that was under way may be counted twice, at each frame")
	}
}

func TestPlacesAreShownAlongAllFiles(t *testing.T) {
	t.Parallel()
	b := setup() // files of 1000, 500 and 50 bytes
	b.read.Position = relay.Position{ServerUUID: "u", File: "binlog.000003", Pos: 20}
	b.status.Saved = relay.Position{ServerUUID: "u", File: "binlog.000009", Pos: 4}
	r := b.run(t, console.Config{Interval: 100 * time.Millisecond}, nil)
	var along map[string]any
	require.True(t, r.watch(t).next("binlog", &along))
	require.Equal(t, map[string]any{"files": 3.0, "bytes": 1550.0, "edges": []any{0.0, 1000.0, 1500.0}, "confirmed": 1300.0, "read": 1520.0},
		along, "the checkpoint's file is not there")
}

// TestAWatcherOutlivesTheLimitsOfOtherAnswers: a server cuts every answer off that takes long, and every request.
func TestAWatcherOutlivesTheLimitsOfOtherAnswers(t *testing.T) {
	t.Parallel()
	const limit = 500 * time.Millisecond
	r := setup().run(t, console.Config{Interval: 100 * time.Millisecond}, func(s *http.Server) {
		s.ReadTimeout, s.WriteTimeout = limit, limit
	})
	watch := r.watch(t)
	for began := time.Now(); time.Since(began) < 10*limit; {
		require.True(t, watch.next("position", &console.Position{}), "cut off after %s", time.Since(began))
	}
}

// deaf asks for /events and never reads. What it returns is closed by the server in the end.
func (r *running) deaf(t *testing.T) net.Conn {
	t.Helper()
	conn, err := r.wires.dial(t.Context(), "", "")
	require.NoError(t, err)
	_, err = io.WriteString(conn, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestWhoDoesNotReadIsDroppedAndHoldsNobodyUp(t *testing.T) {
	t.Parallel()
	dropped := make(chan struct{}, 2) // both connections, in the end
	r := setup().run(t, console.Config{Interval: 20 * time.Millisecond}, func(s *http.Server) {
		s.ConnState = func(_ net.Conn, state http.ConnState) {
			if state == http.StateClosed {
				dropped <- struct{}{}
			}
		}
	})
	r.deaf(t)
	watch, began := r.watch(t), time.Now()
	for gone := false; !gone; {
		require.True(t, watch.next("sample", &columns{}), "who reads is served on")
		select {
		case <-dropped:
			gone = true
		default:
		}
	}
	require.Less(t, time.Since(began), 4*time.Second, "the time that one frame may take is not waited for")
}

func TestAStopLetsWatchersGoAtOnce(t *testing.T) {
	t.Parallel()
	r := setup().run(t, console.Config{Interval: 100 * time.Millisecond}, nil)
	watch := r.watch(t)
	r.deaf(t)
	require.True(t, watch.next("sample", &columns{}))
	began := time.Now()
	r.stop()
	for watch.next("sample", &columns{}) { // what was under way
	}
	require.NoError(t, r.server.Shutdown(t.Context()))
	require.Less(t, time.Since(began), 4*time.Second)
}

// BenchmarkObserve is what the console costs the relay for each event.
func BenchmarkObserve(b *testing.B) {
	c := console.New(setup().view, console.Config{})
	e := row("e", now)
	for i := range b.N {
		c.Observe(e, now.Add(time.Duration(i)*time.Microsecond))
	}
}
