package consume_test

import (
	"database/sql"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/deploy/faults"
	"tailbox/deploy/ops"
	"tailbox/schema"
	"tailbox/schema/schematest"
	"tailbox/worker/consume"
	"tailbox/worker/effect"
)

// scene is a worker with events to apply whose link to one of its servers leads through a proxy.
type scene struct {
	*bundle
	proxy  *faults.Proxy
	events [][]schema.Event
	worker running
	before int // connections before the fault
	hurt   func(*faults.Proxy)
	heal   func(*faults.Proxy)
	felt   func(*scene) bool
}

// everyLinkFault is what a network does to a link: it goes silent in one direction or both, nobody reads, a few bytes come now
// and then, it is reset.
func everyLinkFault() map[string][2]func(*faults.Proxy) {
	both := func(do func(*faults.Proxy, faults.Direction)) func(*faults.Proxy) {
		return func(p *faults.Proxy) { do(p, faults.ToServer); do(p, faults.ToClient) }
	}
	return map[string][2]func(*faults.Proxy){
		"nothing arrives at the server": {
			func(p *faults.Proxy) { p.Swallow(faults.ToServer, true) }, func(p *faults.Proxy) { p.Swallow(faults.ToServer, false) }},
		"nothing comes from the server": {
			func(p *faults.Proxy) { p.Swallow(faults.ToClient, true) }, func(p *faults.Proxy) { p.Swallow(faults.ToClient, false) }},
		"nobody reads": {
			both(func(p *faults.Proxy, d faults.Direction) { p.Stop(d, true) }), both(func(p *faults.Proxy, d faults.Direction) { p.Stop(d, false) })},
		"a trickle": {
			both(func(p *faults.Proxy, d faults.Direction) { p.Trickle(d, 1, 250*time.Millisecond) }),
			both(func(p *faults.Proxy, d faults.Direction) { p.Trickle(d, 0, 0) })},
		"a reset": {func(p *faults.Proxy) { p.Reset() }, func(*faults.Proxy) {}},
	}
}

// TestDeadLinksAreNoticedAndLoseNothing: all faults of both links at the same time, each for a worker of its own, because each
// takes its time to be noticed.
func TestDeadLinksAreNoticedAndLoseNothing(t *testing.T) {
	t.Parallel()
	const noticed, healed = 20 * time.Second, 30 * time.Second
	scenes := map[string]*scene{}
	for fault, steps := range everyLinkFault() {
		broker := newScene(t, steps)
		broker.proxied(t, schematest.Servers(t).Rabbit.Addr())
		broker.url = strings.Replace(broker.url, schematest.Servers(t).Rabbit.Addr(), broker.proxy.Addr(), 1)
		broker.felt = func(s *scene) bool { return s.proxy.Connections() > s.before } // it has thrown the session away
		scenes["to the broker: "+fault] = broker

		database := newScene(t, steps)
		database.proxied(t, schematest.Servers(t).MySQL.Addr())
		database.felt = func(s *scene) bool {
			return fault == "a reset" || len(s.worker.Unready()) == 1 && s.worker.Unready()[0] == consume.NoDatabase
		}
		scenes["to the database: "+fault] = database
	}
	for name, s := range scenes {
		s.begin(t, strings.HasPrefix(name, "to the database"))
	}
	began := time.Now()
	for _, s := range scenes {
		s.before = s.proxy.Connections()
		s.hurt(s.proxy)
	}
	for _, s := range scenes {
		s.publishRest(t)
	}
	for name, s := range scenes {
		within(t, noticed-time.Since(began), func() bool { return s.felt(s) }, name)
	}
	for _, s := range scenes {
		s.heal(s.proxy)
	}
	began = time.Now()
	for name, s := range scenes {
		within(t, healed-time.Since(began), func() bool { return s.done(t) }, name)
	}
	for name, s := range scenes {
		for _, events := range s.events {
			s.applied(t, events)
		}
		require.NoError(t, s.worker.stop(), name)
		require.Zero(t, s.worker.Stats().Messages["dead"]+s.worker.Stats().Messages["retried"], "%s: no message is to blame", name)
		require.Equal(t, len(s.events)*len(s.events[0]), s.count(t, "inbox"), name)
	}
}

func newScene(t *testing.T, steps [2]func(*faults.Proxy)) *scene {
	t.Helper()
	s := &scene{bundle: setup(t), hurt: steps[0], heal: steps[1]}
	for range 20 {
		s.events = append(s.events, customer(6))
	}
	return s
}

// proxied gives the scene a proxy to the server.
func (s *scene) proxied(t *testing.T, server string) {
	t.Helper()
	var err error
	s.proxy, err = faults.New(server)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.proxy.Close()) })
}

// begin publishes the first half of the events and lets the worker get going.
func (s *scene) begin(t *testing.T, database bool) {
	t.Helper()
	direct := *s.bundle
	for version := range 3 {
		for _, events := range s.events {
			direct.publish(t, events[version])
		}
	}
	workers := direct
	if database {
		workers.db = s.throughProxy(t)
	}
	s.worker = workers.start(t, consume.Config{Prefetch: 64, HandleTimeout: 8 * time.Second}, effect.Handlers())
	s.worker.settled(t, "applied", 1)
}

// throughProxy is a pool for the worker that is as its main opens it.
func (s *scene) throughProxy(t *testing.T) *sql.DB {
	t.Helper()
	dsn, err := ops.ParseDSN("MYSQL_DSN", ops.Secret(schematest.Servers(t).MySQL.DSN(s.database(t))), ops.TLSFiles{})
	require.NoError(t, err)
	dsn.Addr, dsn.ReadTimeout, dsn.InterpolateParams = s.proxy.Addr(), 10*time.Second, true
	db, err := ops.OpenMySQL(dsn, consume.DefaultConcurrency+2)
	require.NoError(t, err)
	t.Cleanup(func() { _ = db.Close() }) // a connection of it may be broken, which is what the test is about
	return db
}

func (s *scene) publishRest(t *testing.T) {
	t.Helper()
	var rest []schema.Event
	for version := 3; version < 6; version++ {
		for _, events := range s.events {
			rest = append(rest, events[version])
		}
	}
	s.publish(t, rest...)
}

// within waits for what is left of a time, which may be over; what holds already has come in time.
func within(t *testing.T, left time.Duration, holds func() bool, what string) {
	t.Helper()
	if !holds() {
		require.Eventually(t, holds, max(time.Millisecond, left), 10*time.Millisecond, what)
	}
}

// done tells whether all events have had their effect.
func (s *scene) done(t *testing.T) bool {
	t.Helper()
	var sum int
	require.NoError(t, s.db.QueryRowContext(t.Context(), "SELECT COALESCE(SUM(version), 0) FROM customer_profiles").Scan(&sum))
	return sum == len(s.events)*len(s.events[0])
}

// entered starts a worker whose link to the database leads through a proxy, and waits until the handler of an event has begun.
func entered(t *testing.T, cfg consume.Config) (s *scene, w running, g *gate, event schema.Event) {
	t.Helper()
	s = &scene{bundle: setup(t)}
	s.proxied(t, schematest.Servers(t).MySQL.Addr())
	workers := *s.bundle
	workers.db = s.throughProxy(t)
	g = newGate()
	w = workers.start(t, cfg, g.handlers())
	w.ready(t)
	event = schematest.Event()
	s.publish(t, event)
	<-g.entered
	return s, w, g, event
}

func TestTryThatRunsOutOfTimeWithoutADatabaseBlamesNobody(t *testing.T) {
	t.Parallel()
	s, w, g, event := entered(t, consume.Config{HandleTimeout: 8 * time.Second})
	s.proxy.Swallow(faults.ToClient, true)
	eventually(t, "the database is found dead", func() bool { return len(w.Unready()) > 0 })
	<-g.gaveUp
	s.proxy.Swallow(faults.ToClient, false)
	close(g.leave)
	s.applied(t, []schema.Event{event})
	require.Zero(t, w.Stats().Messages["retried"])
}

// TestATransactionOfAWorkerThatIsGoneIsEnded: its host has lost power in the middle of an event, and the database is never told.
func TestATransactionOfAWorkerThatIsGoneIsEnded(t *testing.T) {
	t.Parallel()
	s, w, g, event := entered(t, consume.Config{HandleTimeout: time.Second, ShutdownTimeout: time.Second})
	s.proxy.Swallow(faults.ToServer, true)
	<-g.gaveUp
	close(g.leave)
	_ = w.stop() // what it makes of its end does not matter

	s.start(t, consume.Config{}, effect.Handlers())
	s.applied(t, []schema.Event{event})
}
