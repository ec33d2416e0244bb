package e2e_test

import (
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/deploy/browser"
	"tailbox/deploy/services"
	"tailbox/deploy/stack"
	"tailbox/schema"
	"tailbox/schema/schematest"
	"tailbox/schema/topology"
)

// TestThePageShowsWhatHappens looks at the relay's page as a person does, while customers are posted, the broker is out of reach
// for the relay and a binding is lost.
func TestThePageShowsWhatHappens(t *testing.T) {
	t.Parallel()
	w := setup(t, option{noStart: true})
	broker := w.proxy(w.stack.Rabbit.Addr())
	cfg := w.config("cdc", "cdc", "ADMIN_TOKEN=dev", "MAX_MESSAGE_BYTES=4000", "WORKER_URL="+w.worker.URL(""))
	cfg.AMQPURL = strings.Replace(w.stack.Rabbit.URL("/"), w.stack.Rabbit.Addr(), broker.Addr(), 1)
	w.cdc = services.New(cfg)
	w.start(w.api, w.worker, w.cdc)
	page := browser.Open(t)
	page.Size(1280, 900, false)
	page.Go(w.cdc.URL("/"))
	page.WaitFor("#state-title", "Working")
	require.Equal(t, "0", page.Text("[data-total=confirmed]"))

	// A customer's event comes by on all of its way.
	_, err := w.post(t.Context(), 1)
	require.NoError(t, err)
	page.WaitFor("[data-total=confirmed]", "1")
	page.WaitFor(".event", "customer.CustomerCreated")
	require.Contains(t, page.Text("#latency"), "s", "milliseconds or seconds")
	w.everythingOnce(1)
	page.WaitFor("#path", "applied")
	page.WaitFor("#dead", "Empty")
	page.WaitFor("#members", "leads")

	// An outage shows, and that it is over.
	broker.Refuse(true)
	broker.Reset()
	_, err = w.post(t.Context(), 2)
	require.NoError(t, err)
	page.WaitFor("#state-title", "Held up: RabbitMQ does not answer")
	page.WaitFor("#path", "does not answer")
	w.keep("outage", page.Picture())
	broker.Refuse(false)
	page.WaitFor("#state-title", "Working")
	page.WaitFor("[data-total=confirmed]", "2")

	// What holds the rest up is named, with why.
	ch := w.channel()
	require.NoError(t, ch.QueueUnbind(topology.CustomersQueue, topology.CustomersBinding, topology.Exchange, nil))
	_, err = w.post(t.Context(), 3)
	require.NoError(t, err)
	page.WaitFor("#state-title", "Held up: an event reaches no queue")
	page.WaitFor("#held", "customer.CustomerCreated")
	require.Equal(t, "1", page.Text("#stuck"))
	require.NoError(t, ch.QueueBind(topology.CustomersQueue, topology.CustomersBinding, topology.Exchange, false, nil))
	page.WaitFor("#state-title", "Working")
	w.everythingOnce(3)

	// Pause asks for the token, tells when it is wrong, and says afterwards who paused and why.
	page.Click("#pause")
	page.Type("#ask-why", "an upgrade")
	page.Type("#ask-token", "wrong")
	page.Click("#ask-go")
	page.WaitFor("#ask-wrong", "not the right one")
	page.Type("#ask-token", "dev")
	page.Click("#ask-go")
	page.WaitFor("#state-title", "Paused")
	page.WaitFor("#state-who", "an upgrade")
	_, err = w.post(t.Context(), 4)
	require.NoError(t, err)
	page.WaitFor("#behind-note", "in flight")
	require.Equal(t, "3", page.Text("[data-total=confirmed]"))
	page.Click("#resume") // the token is known now
	page.Click("#ask-go")
	page.WaitFor("#state-title", "Working")
	page.WaitFor("[data-total=confirmed]", "4")

	// What was set aside shows with its reason, and goes when it is dropped.
	poison := schematest.Event(func(e *schema.Event) { e.Payload = []byte(`"` + strings.Repeat("x", 5000) + `"`) })
	require.NoError(t, insert(t.Context(), w.db, true, poison))
	page.WaitFor("#quarantine", poison.ID[len(poison.ID)-12:])
	require.Equal(t, "1", page.Text("#stuck"))
	page.Click("#quarantine .danger")
	page.Click("#ask-go")
	page.WaitFor("#quarantine", "Empty")

	// All of it without a word of complaint, but for the refused token's.
	complaints := page.Complaints()
	require.Len(t, complaints, 1)
	require.Contains(t, complaints[0], "401")
}

// keep writes a picture into the folder that PICTURES names, if any, for a person to look at.
func (w *world) keep(name string, png []byte) {
	w.t.Helper()
	if dir := os.Getenv("PICTURES"); dir != "" {
		require.NoError(w.t, os.WriteFile(dir+"/"+name+".png", png, 0o644))
	}
}

// TestThePositionIsToldAtOnceWhateverHappens: with the relay at full speed, and with servers that are frozen, which is worse
// than dead: whoever asks them waits. What a busy machine adds is seen by /healthz, which does nothing.
func TestThePositionIsToldAtOnceWhateverHappens(t *testing.T) {
	t.Parallel()
	w := setup(t, option{noStart: true})
	const backlog = 20000
	for range backlog / 200 {
		events := make([]schema.Event, 200)
		for i := range events {
			events[i] = schematest.Event()
		}
		require.NoError(t, insert(t.Context(), w.db, true, events...))
	}
	w.audit("#")
	require.NoError(t, w.cdc.Start())
	w.waitFor("the relay to listen", time.Minute, func() bool {
		return w.call(t.Context(), http.MethodGet, w.cdc.URL("/healthz"), "", http.StatusOK, nil) == nil
	})

	w.atOnce("at full speed", func(p position) bool { return p.Totals.Confirmed >= backlog })
	for name, server := range map[string]*stack.Server{"MySQL": w.stack.MySQL.Server, "RabbitMQ": w.stack.Rabbit.Server} {
		require.NoError(t, server.Pause())
		asked := 0
		w.atOnce(name+" frozen", func(p position) bool { asked++; return asked == 300 && p.State != "" })
		require.NoError(t, server.Resume())
	}
}

// atOnce asks for the position again and again until it is as wanted, and for nothing beside it.
func (w *world) atOnce(when string, until func(position) bool) {
	w.t.Helper()
	var positions, nothings []time.Duration
	timed := func(path string, into any) time.Duration {
		began := time.Now()
		require.NoError(w.t, w.call(w.t.Context(), http.MethodGet, w.cdc.URL(path), "", http.StatusOK, into))
		return time.Since(began)
	}
	for done, end := false, time.Now().Add(time.Minute); !done; {
		require.True(w.t, time.Now().Before(end), when)
		var p position
		nothings = append(nothings, timed("/healthz", nil))
		positions = append(positions, timed("/position", &p))
		done = until(p)
	}
	slices.Sort(positions)
	slices.Sort(nothings)
	last := len(positions) - 1
	w.t.Logf("%s, %d answers: half within %s, 99 %% within %s, the slowest %s; of /healthz %s, %s, %s", when, last+1, positions[last/2],
		positions[last*99/100], positions[last], nothings[last/2], nothings[last*99/100], nothings[last])
	const most = 50 * time.Millisecond
	require.Less(w.t, positions[last/2], most, when)
	require.Less(w.t, positions[last*99/100], max(most, 4*nothings[last*99/100]), when)
	require.Less(w.t, positions[last], max(time.Second, 10*nothings[last]), when) // who waits for a server waits for longer
}
