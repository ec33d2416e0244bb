package publish_test

import (
	"bytes"
	"context"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"tailbox/cdc/publish"
	"tailbox/cdc/relay"
	"tailbox/deploy/faults"
	"tailbox/deploy/ops"
	"tailbox/schema"
	"tailbox/schema/schematest"
	"tailbox/schema/topology"
)

// detection is how soon a link that is no use has to be given up.
const detection = 20 * time.Second

// faulty is a bundle whose publisher reaches the broker through a proxy; its own channel does not.
type faulty struct {
	*bundle
	proxy *faults.Proxy
}

func setupFaulty(t *testing.T) *faulty {
	t.Helper()
	f := &faulty{bundle: setup(t)}
	require.NoError(t, topology.DeclareExchange(f.ch, topology.Exchange))
	_, err := f.ch.QueueDeclare("all", true, false, false, false, amqp.Table{"x-queue-type": "quorum"})
	require.NoError(t, err)
	require.NoError(t, f.ch.QueueBind("all", "#", topology.Exchange, false, nil))
	f.proxy, err = faults.New(schematest.Servers(t).Rabbit.Addr())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.proxy.Close()) })
	f.configure(publish.Config{URL: f.url()})
	return f
}

// url leads through the proxy.
func (f *faulty) url() ops.Secret {
	return ops.Secret(strings.Replace(f.bundle.url, schematest.Servers(f.t).Rabbit.Addr(), f.proxy.Addr(), 1))
}

// end is what a session reported before it ended, and when that was.
type end struct {
	confirmed uint64
	others    []relay.Outcome
	at        time.Time
}

// watch drains a session's outcomes until it has ended.
func watch(s relay.Session) <-chan end {
	ended := make(chan end, 1)
	go func() {
		var e end
		for o := range s.Outcomes() {
			if o.Kind == relay.Confirmed {
				e.confirmed = o.Seq
			} else {
				e.others = append(e.others, o)
			}
		}
		e.at = time.Now()
		ended <- e
	}()
	return ended
}

// replay sends what a lost session did not confirm through another, and looks for all of it in the queue.
func (f *faulty) replay(batch []relay.Row, confirmed uint64) {
	f.t.Helper()
	s := f.open()
	s.Publish(batch[confirmed:])
	f.confirmed(s, uint64(len(batch)))
	f.delivered(batch)
}

// delivered looks for the first delivery of each row, which has to come in order. Others may follow.
func (f *faulty) delivered(batch []relay.Row) {
	f.t.Helper()
	var want, got []string
	for _, row := range batch {
		want = append(want, row.Event.ID)
	}
	for {
		m, some, err := f.ch.Get("all", true)
		require.NoError(f.t, err)
		if !some {
			break
		}
		if !slices.Contains(got, m.MessageId) {
			got = append(got, m.MessageId)
		}
	}
	require.Equal(f.t, want, got)
}

// large makes the payload of events fill the window's bytes.
func large(e *schema.Event) {
	e.Payload = bytes.Join([][]byte{[]byte(`"`), bytes.Repeat([]byte("x"), 160<<10), []byte(`"`)}, nil)
}

// fault is one way in which a link fails.
type fault struct {
	name      string
	change    func(*schema.Event) // of the events under way
	underWay  bool                // it happens when they were sent, not before
	on, off   func(*faults.Proxy)
	f         *faulty
	s         relay.Session
	events    []relay.Row
	began     time.Time
	confirmed <-chan end
}

// strike lets a hundred events be confirmed, or none of the rest, before the link fails under a hundred more.
func (l *fault) strike(t *testing.T) {
	t.Helper()
	l.f = setupFaulty(t)
	l.s = l.f.open()
	l.events = append(rows(1, 100), rows(101, 100, l.change)...)
	l.s.Publish(l.events[:100])
	l.f.confirmed(l.s, 100)
	if l.underWay {
		l.s.Publish(l.events[100:])
	}
	l.on(l.f.proxy)
	l.began = time.Now()
	if !l.underWay {
		l.s.Publish(l.events[100:])
	}
	l.confirmed = watch(l.s)
}

// TestALinkThatIsNoUseIsGivenUpAndNothingIsLost: all links fail at about the same time, each a session of its own.
func TestALinkThatIsNoUseIsGivenUpAndNothingIsLost(t *testing.T) {
	t.Parallel()
	small := func(*schema.Event) {}
	swallow := func(d faults.Direction, on bool) func(*faults.Proxy) {
		return func(p *faults.Proxy) { p.Swallow(d, on) }
	}
	stop := func(d faults.Direction, on bool) func(*faults.Proxy) {
		return func(p *faults.Proxy) { p.Stop(d, on) }
	}
	healed := func(*faults.Proxy) {}
	links := []*fault{
		{name: "the answers are swallowed", change: small, on: swallow(faults.ToClient, true), off: swallow(faults.ToClient, false)},
		{name: "the events are swallowed", change: small, on: swallow(faults.ToServer, true), off: swallow(faults.ToServer, false)},
		{name: "the answers are not read", change: small, on: stop(faults.ToClient, true), off: stop(faults.ToClient, false)},
		{name: "the events are not read", change: small, on: stop(faults.ToServer, true), off: stop(faults.ToServer, false)},
		{name: "a window of large events is not read", change: large, on: stop(faults.ToServer, true), off: stop(faults.ToServer, false)},
		{name: "a reset", change: small, underWay: true, on: (*faults.Proxy).Reset, off: healed},
		{name: "a reset under large events", change: large, underWay: true, on: (*faults.Proxy).Reset, off: healed},
	}
	for _, l := range links {
		l.strike(t)
	}
	for _, l := range links {
		select {
		case e := <-l.confirmed:
			require.Less(t, e.at.Sub(l.began), detection, l.name)
			require.Empty(t, e.others, "%s: what is not confirmed is unknown, and nothing else", l.name)
			require.Error(t, l.s.Err(), l.name)
			l.off(l.f.proxy)
			l.f.replay(l.events, max(100, e.confirmed))
		case <-time.After(detection):
			t.Fatalf("%s: the session is still there", l.name)
		}
	}
}

// TestALinkThatIsCutInTheMiddleOfAnAnswerLosesNothing cuts later and later, in the handshake at first and then under confirms.
func TestALinkThatIsCutInTheMiddleOfAnAnswerLosesNothing(t *testing.T) {
	t.Parallel()
	f := setupFaulty(t)
	batch := rows(1, 40)
	var refused, cut int
	for bytes, whole := int64(100), false; !whole; bytes += 97 {
		f.proxy.CutAfter(faults.ToClient, bytes)
		s, err := f.pub.Open(t.Context())
		if err != nil {
			refused++
			continue
		}
		whole = true
		for i := range batch { // one by one, so that each has a confirm
			s.Publish(batch[i : i+1])
			select {
			case o, open := <-s.Outcomes():
				whole = whole && open
				require.Equal(t, relay.Confirmed, o.Kind)
			case <-time.After(detection):
				t.Fatal("neither an outcome nor an end")
			}
			if !whole {
				cut++
				break
			}
		}
		_ = s.Close(t.Context()) // the link may have been cut
	}
	require.Positive(t, refused)
	require.Positive(t, cut)
	f.proxy.CutAfter(faults.ToClient, -1)
	f.delivered(batch)
}

// TestALinkThatTricklesIsNoDeadLink: what is slow takes longer than the broker may be silent, all in all.
func TestALinkThatTricklesIsNoDeadLink(t *testing.T) {
	t.Parallel()
	for _, way := range []struct {
		name      string
		direction faults.Direction
		bytes     int
		every     time.Duration
		events    int
		change    func(*schema.Event)
	}{
		{"the answers", faults.ToClient, 1, 8 * time.Millisecond, 100, func(*schema.Event) {}},
		{"the events", faults.ToServer, 10, 2 * time.Millisecond, 60, func(*schema.Event) {}},
		{"one large event", faults.ToServer, 16 << 10, 10 * time.Millisecond, 1, func(e *schema.Event) { e.Payload = bytes.Repeat([]byte("1"), 8<<20) }},
	} {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			f := setupFaulty(t)
			f.configure(publish.Config{URL: f.url(), ConfirmTimeout: 4 * time.Second})
			s := f.open()
			f.proxy.Trickle(way.direction, way.bytes, way.every)
			batch := rows(1, way.events, way.change)
			s.Publish(batch)
			f.confirmed(s, uint64(way.events))
			f.proxy.Trickle(way.direction, 0, 0)
			f.delivered(batch)
		})
	}
}

func TestAWindowOfLargeEventsIsConfirmedInOrder(t *testing.T) {
	t.Parallel()
	f := setupFaulty(t)
	s := f.open()
	batch := rows(1, 100, large)
	s.Publish(batch)
	f.confirmed(s, 100)
	f.delivered(batch)
}

func TestOpenGivesUpABrokerThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	f := setupFaulty(t)
	f.proxy.Swallow(faults.ToClient, true)
	began := time.Now()
	_, err := f.pub.Open(t.Context())
	require.Error(t, err)
	require.Less(t, time.Since(began), detection)
}

// TestManySessionsLeaveNothingBehind counts goroutines and files of the process, so no other test may run beside it.
func TestManySessionsLeaveNothingBehind(t *testing.T) { //nolint:paralleltest // see above
	cycles := 50
	if os.Getenv("COUNT") == "full" {
		cycles = 500
	}
	f := setupFaulty(t)
	files := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		return len(list)
	}
	cycle := func(i int) {
		s, err := f.pub.Open(t.Context())
		require.NoError(t, err)
		s.Publish(rows(1, 10))
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		switch i % 4 {
		case 0:
			f.confirmed(s, 10)
		case 1: // by force
			cancel()
		case 2:
			f.proxy.Reset()
		case 3: // by force, with the buffers full
			s.Publish(rows(11, 80, large))
			f.proxy.Stop(faults.ToServer, true)
			cancel()
		}
		_ = s.Close(ctx) // what was cut says so
		f.proxy.Stop(faults.ToServer, false)
	}
	for i := range 4 { // what is opened once for all is opened now
		cycle(i)
	}
	goroutines, open := runtime.NumGoroutine(), files()
	for i := range cycles {
		cycle(i)
	}
	const itself = 1 // Eventually asks from a goroutine of its own
	require.Eventually(t, func() bool { return runtime.NumGoroutine() <= goroutines+itself && files() <= open }, 30*time.Second, 20*time.Millisecond,
		"before there were %d goroutines and %d files", goroutines, open)
	_, err := f.ch.QueuePurge("all", false)
	require.NoError(t, err)
}
