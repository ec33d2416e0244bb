package e2e_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/deploy/faults"
	"tailbox/deploy/services"
	"tailbox/schema"
	"tailbox/schema/schematest"
)

// noticed is how soon a link that is dead has to be taken for dead.
const noticed = 20 * time.Second

// badLink is something that a network does between one of the services and the broker. It begins under load and lasts until
// all that are dead have been noticed.
type badLink struct {
	name     string
	atWorker bool // else it is the relay's link
	begin    func(*faults.Proxy)
	again    func(*faults.Proxy) // done twice a second, for faults of a moment
	alive    bool                // it is only slow: it may not be given up
}

var badLinks = []badLink{
	{name: "relay hears no confirms", begin: func(p *faults.Proxy) { p.Swallow(faults.ToClient, true) }},
	{name: "relay is not heard", begin: func(p *faults.Proxy) { p.Swallow(faults.ToServer, true) }},
	{name: "relay is not read", begin: func(p *faults.Proxy) { p.Stop(faults.ToServer, true) }},
	{name: "relay hears a trickle", begin: func(p *faults.Proxy) { p.Trickle(faults.ToClient, 1, time.Second) }},
	{name: "relay is slow", begin: slow, alive: true},
	{name: "relay is reset", begin: none, again: (*faults.Proxy).Reset},
	{name: "relay is cut", begin: none, again: cut},
	{name: "worker hears nothing", atWorker: true, begin: func(p *faults.Proxy) { p.Swallow(faults.ToClient, true) }},
	{name: "worker is not heard", atWorker: true, begin: func(p *faults.Proxy) { p.Swallow(faults.ToServer, true) }},
	{name: "worker is not read", atWorker: true, begin: func(p *faults.Proxy) { p.Stop(faults.ToServer, true) }},
	{name: "worker hears a trickle", atWorker: true, begin: func(p *faults.Proxy) { p.Trickle(faults.ToClient, 1, time.Second) }},
	{name: "worker is slow", atWorker: true, begin: slow, alive: true},
	{name: "worker is reset", atWorker: true, begin: none, again: (*faults.Proxy).Reset},
	{name: "worker is cut", atWorker: true, begin: none, again: cut},
}

func none(*faults.Proxy) {}

// slow is a link of 200 KB/s in small pieces: a whole window of heavy events takes longer than a confirm may.
func slow(p *faults.Proxy) {
	p.Trickle(faults.ToClient, 1000, 5*time.Millisecond)
	p.Trickle(faults.ToServer, 1000, 5*time.Millisecond)
}

// heavy are a window of events that are 4 KB each.
func heavy() []schema.Event {
	events := make([]schema.Event, 1000)
	for i := range events {
		events[i] = schematest.Event(func(e *schema.Event) {
			e.Payload = fmt.Appendf(nil, `{"id":%q,"email":"ada@example.com","name":"Ada","note":%q}`, e.AggregateID, strings.Repeat("x", 4000))
		})
	}
	return events
}

// cut ends what is connected now, and each connection to come behind some byte.
func cut(p *faults.Proxy) {
	p.CutAfter(faults.ToServer, rand.Int64N(20_000))
	p.CutAfter(faults.ToClient, rand.Int64N(20_000))
	p.Reset()
}

func mend(p *faults.Proxy) {
	for _, d := range []faults.Direction{faults.ToServer, faults.ToClient} {
		p.Swallow(d, false)
		p.Stop(d, false)
		p.Trickle(d, 0, 0)
		p.CutAfter(d, -1)
	}
}

// trial is one bad link of one lane.
type trial struct {
	badLink
	*lane
	link       *faults.Proxy
	service    *services.Service
	routed     *audit
	goroutines int
	before     int // connections
	began      time.Time
	took       time.Duration // to notice
}

// TestBadLinksAreNoticedAndLoseNothing: each way in which a link to the broker goes bad, side by side. What is dead is noticed
// within 20 seconds, which shows in a new connection; when the links are good again everything is there, once and in order,
// and no goroutine is left behind.
func TestBadLinksAreNoticedAndLoseNothing(t *testing.T) {
	t.Parallel()
	w := setup(t, option{noStart: true, mysql: []string{"--max-connections=500"}})
	var trials []*trial
	for _, bad := range badLinks {
		trials = append(trials, w.try(bad))
	}
	for _, tr := range trials {
		tr.before, tr.began = tr.link.Connections(), time.Now()
		tr.begin(tr.link)
		if tr.alive {
			tr.probes += 1000
			require.NoError(t, insert(t.Context(), tr.db, true, heavy()...))
		}
	}
	w.waitFor("every dead link to be noticed, and the slow ones to be through", 3*noticed, func() bool {
		all := true
		for _, tr := range trials {
			all = tr.isNoticed() && all
		}
		pause(t, 500*time.Millisecond)
		return all
	})
	for _, tr := range trials {
		mend(tr.link)
		tr.stopFeed()
	}
	for _, tr := range trials {
		tr.settles()
	}
	for _, tr := range trials {
		tr.judge()
	}
}

// try builds a lane whose link has been lost once, so that all pools are as full as they get, and counts its goroutines.
func (w *world) try(bad badLink) *trial {
	w.t.Helper()
	tr := &trial{badLink: bad, lane: w.lane(bad.name)}
	tr.link, tr.service = tr.relayLink, tr.cdc
	if bad.atWorker {
		tr.link, tr.service = tr.workerLink, tr.worker
	}
	tr.routed = tr.audit("#")
	tr.startFeed(100 * time.Millisecond)
	tr.link.Reset()
	w.waitFor("the first effects", time.Minute, func() bool { return tr.number("SELECT COUNT(*) FROM inbox") > 10 })
	tr.goroutines = tr.metric(tr.service, "go_goroutines")
	return tr
}

func (tr *trial) isNoticed() bool {
	if tr.again != nil {
		tr.again(tr.link)
	}
	if tr.took == 0 && tr.link.Connections() > tr.before {
		tr.took = time.Since(tr.began)
	}
	if tr.alive { // long enough to be taken for dead
		return tr.number("SELECT COUNT(*) FROM inbox") >= tr.probes
	}
	return tr.took > 0
}

func (tr *trial) settles() {
	tr.t.Helper()
	tr.everythingOnce(tr.fed + tr.probes)
	tr.firstDeliveriesFollowVersions(tr.routed.settled())
	left := 0
	tr.waitFor("goroutines to end: "+tr.name, 10*time.Second, func() bool {
		left = tr.metric(tr.service, "go_goroutines")
		return left <= tr.goroutines+4 // those of database pools among them
	})
	tr.t.Logf("%s: %d events, noticed after %v, %d connections, goroutines %d then %d",
		tr.name, tr.fed, tr.took.Round(time.Millisecond), tr.link.Connections()-tr.before, tr.goroutines, left)
}

func (tr *trial) judge() {
	tr.t.Helper()
	if tr.alive {
		require.Zero(tr.t, tr.took, "%s: a link that is only slow was given up", tr.name)
		return
	}
	require.LessOrEqual(tr.t, tr.took, noticed, tr.name)
}
