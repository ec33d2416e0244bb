package console_test

import (
	_ "embed"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"tailbox/cdc/binlog"
	"tailbox/cdc/console"
	"tailbox/cdc/relay"
	"tailbox/deploy/browser"
	"tailbox/schema"
)

// looked is a page in a browser over a relay whose status can be changed.
type looked struct {
	*browser.Page
	status atomic.Pointer[relay.Status]
	watch  *console.Console
}

func look(t *testing.T) *looked {
	t.Helper()
	b := setup()
	l := &looked{Page: browser.Open(t)}
	status := b.status
	l.status.Store(&status)
	b.view.Now = time.Now
	b.view.Relay = func() relay.Status { return *l.status.Load() }
	b.view.Read = func() binlog.ReadPlace {
		return binlog.ReadPlace{Position: status.ConfirmedAt, CommittedAt: time.Now()}
	}
	b.view.Source = func() binlog.Survey {
		survey := b.survey
		survey.At = time.Now()
		return survey
	}
	r := b.run(t, console.Config{Exchange: "outbox.events", Admin: true, Interval: 100 * time.Millisecond}, nil)
	l.watch = r.Console
	mux := http.NewServeMux()
	mux.Handle("/", r.Handler(prometheus.NewRegistry()))
	mux.HandleFunc("GET /quarantine", answer(`{"events":[{"id":1,"event_id":"e-1","type":"CustomerCreated","reason":"its header is too long","source_position":"u:3"}],"total":1}`))
	mux.HandleFunc("GET /audit", answer(`{"entries":[{"at":"2026-11-23T12:00:00Z","actor":"ada","action":"pause","why":"an upgrade"}]}`))
	server := httptest.NewServer(mux)
	t.Cleanup(func() {
		r.stop() // or its own open page would hold the server up
		server.Close()
	})
	l.Go(server.URL)
	l.WaitFor("#link", "live")
	return l
}

func answer(document string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, document) }
}

func (l *looked) set(change func(*relay.Status)) {
	status := *l.status.Load()
	change(&status)
	l.status.Store(&status)
}

//go:embed testdata/contrast.js
var contrast string

// TestThePageIsReadableInEveryState looks at each state on a screen and a phone, light and dark: its words are there, nothing
// sticks out sideways, every text stands out from what is behind it, and the browser has nothing to complain of.
func TestThePageIsReadableInEveryState(t *testing.T) {
	t.Parallel()
	l := look(t)
	at := time.Now()
	for i := range 30 {
		l.watch.Observe(row(fmt.Sprintf("0192f6a4-0000-7000-8000-%012d", i), at.Add(-5*time.Millisecond)), at)
	}
	for i, seen := range []struct {
		state  relay.State
		reason relay.Reason
		title  string
	}{
		{relay.Streaming, "", "Working"},
		{relay.Stalled, relay.BrokerDown, "Held up: RabbitMQ does not answer"},
		{relay.Stalled, relay.SourceDown, "Held up: MySQL does not answer"},
		{relay.Stalled, relay.Unroutable, "Held up: an event reaches no queue"},
		{relay.Paused, "", "Paused"},
		{relay.Standby, "", "Standing by"},
		{relay.Snapshot, "", "Sending what the table held"},
		{relay.Halted, relay.BinlogPurged, "Halted: the binlog it needs was deleted"},
	} {
		l.Size([]int{1280, 390}[i%2], 900, i/2%2 == 1)
		l.set(func(s *relay.Status) {
			s.State, s.Reason, s.Me, s.Leader, s.Detail = seen.state, seen.reason, seen.state != relay.Standby, "me", ""
			s.InFlight, s.Waiting = 0, relay.Row{}
			if seen.reason != "" {
				s.InFlight = 7
				s.Waiting = relay.Row{Position: "u:12", CommittedAt: at, Event: schema.Event{ID: schema.NewID(), Type: "Shipped", AggregateType: "order"}}
			}
			if seen.state == relay.Halted {
				s.Detail = "the server has no binlog.000001 any more: " + fmt.Sprint(make([]int, 80))
			}
		})
		l.WaitFor("#state-title", seen.title)
		require.LessOrEqual(t, browser.Evaluate[int](l.Page, "document.documentElement.scrollWidth - innerWidth"), 0, "%s sticks out", seen.title)
		require.Empty(t, browser.Evaluate[[]string](l.Page, contrast), "%s: texts that are hard to read", seen.title)
	}
	require.Equal(t, "customer.CustomerCreated", l.Text(".event .routing"))
	require.Contains(t, l.Text("#quarantine"), "its header is too long")
	require.Empty(t, l.Complaints())
}

// TestThePageWorksWithoutAMouse: every control has a name and is reached by Tab, the dialog can be left by Escape, and what
// changes by itself is announced.
func TestThePageWorksWithoutAMouse(t *testing.T) {
	t.Parallel()
	l := look(t)
	l.set(func(s *relay.Status) { s.State, s.Me = relay.Streaming, true })
	l.WaitFor("#state-title", "Working")
	require.Empty(t, browser.Evaluate[[]string](l.Page, `[...document.querySelectorAll('button, a, input')]
		.filter(e => !(e.getAttribute('aria-label') || e.innerText || e.closest('label'))).map(e => e.outerHTML)`), "controls without a name")
	require.Equal(t, []string{"HEADER", "MAIN", "FOOTER"}, browser.Evaluate[[]string](l.Page, `[...document.body.children]
		.map(e => e.tagName).filter(n => ['HEADER', 'MAIN', 'FOOTER'].includes(n))`))
	require.Equal(t, "polite", browser.Evaluate[string](l.Page, "document.getElementById('state-title').closest('[role=status]').ariaLive"))

	reached := map[string]bool{}
	for range 12 {
		l.Press("Tab")
		reached[browser.Evaluate[string](l.Page, "document.activeElement.id || document.activeElement.className")] = true
	}
	for _, id := range []string{"skip", "theme", "pause", "freeze"} {
		require.True(t, reached[id], "%s is not reached by Tab, only %v", id, reached)
	}
	browser.Evaluate[any](l.Page, "document.getElementById('pause').focus()")
	l.Press("Enter")
	l.WaitFor("#ask-title", "Pause the relay?")
	require.Equal(t, "ask-token", browser.Evaluate[string](l.Page, "document.activeElement.id"))
	l.Press("Escape")
	require.False(t, browser.Evaluate[bool](l.Page, "document.getElementById('ask').open"))
	require.Equal(t, "pause", browser.Evaluate[string](l.Page, "document.activeElement.id"), "the focus is where it was")
}

func TestThePageSaysWhenTheRelayIsGone(t *testing.T) {
	t.Parallel()
	b := setup()
	r := b.run(t, console.Config{Interval: 100 * time.Millisecond}, nil)
	server := httptest.NewServer(r.Handler(prometheus.NewRegistry()))
	p := browser.Open(t)
	p.Go(server.URL)
	p.WaitFor("#link", "live")
	r.stop()
	server.Close()
	p.WaitFor("#link", "no answer since")
}
