package e2e_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/deploy/services"
	"tailbox/schema"
	"tailbox/schema/schematest"
)

// TestTheBrokerMayDieUnderLoad: SIGKILL and polite stops in turn. Each time an event posted when the port is open again has
// its effect within the limit.
func TestTheBrokerMayDieUnderLoad(t *testing.T) {
	t.Parallel()
	w := setup(t)
	audit := w.audit("#")
	l := w.load(8, 0)
	pause(t, time.Second) // a queue younger than that may not outlive a kill: see stack.RabbitMQ
	w.recovers("the start")
	rounds := count(15)
	for range rounds {
		l.goesOn(func() {
			require.NoError(t, w.stack.Rabbit.Kill())
			w.brokerIsBack("a kill")
		})
		l.goesOn(func() {
			require.NoError(t, w.stack.Rabbit.Stop(t.Context()))
			w.brokerIsBack("a stop")
		})
		audit.read()
	}
	w.feltAtLeast(2 * rounds)
	l.goesOn(func() { // both services begin anew while there is no broker
		require.NoError(t, w.stack.Rabbit.Kill())
		for _, s := range []*services.Service{w.cdc, w.worker} {
			require.NoError(t, s.Process().Kill())
			require.NoError(t, s.Start())
		}
		w.brokerIsBack("a kill of broker, relay and worker")
	})
	w.survived(l, audit)
}

func TestConnectionsMayBeClosedByTheBrokerUnderLoad(t *testing.T) {
	t.Parallel()
	w := setup(t)
	audit := w.audit("#")
	l := w.load(8, 0)
	w.recovers("the start")
	times, before := count(50), w.position().Totals
	for range times {
		l.goesOn(func() {
			lost := w.position().Totals.Reconnects
			burst := w.burst(10, 50)
			require.NoError(t, w.stack.Rabbit.CloseConnections(t.Context()))
			burst()
			w.recovers("the connections were closed")
			require.Greater(t, w.position().Totals.Reconnects, lost, "the relay lost its connection")
		})
	}
	w.feltAtLeast(times)
	w.survived(l, audit)
	after := w.position().Totals
	require.Greater(t, after.Published-before.Published, after.Read-before.Read, "events were under way")
}

// burst commits events as fast as it goes, so many to a transaction, and returns what waits for its end.
func (w *world) burst(transactions, each int) (wait func()) {
	done := make(chan error, 1)
	w.probes += transactions * each
	go func() {
		var err error
		for range transactions {
			events := make([]schema.Event, each)
			for i := range events {
				events[i] = schematest.Event()
			}
			err = errors.Join(err, insert(w.t.Context(), w.db, true, events...))
		}
		done <- err
	}()
	return func() { require.NoError(w.t, <-done) }
}

// feltAtLeast requires that the relay has lost so many sessions.
func (w *world) feltAtLeast(sessions int) {
	w.t.Helper()
	require.GreaterOrEqual(w.t, w.metric(w.cdc, brokerReconnects), sessions, "the faults were felt")
}

const brokerReconnects = `tailbox_relay_reconnects_total{peer="rabbitmq"}`

// survived ends the load and checks what must hold after faults of the broker: the services run, nothing was lost, and all
// happened once and in order.
func (w *world) survived(l *load, audit *audit) {
	w.t.Helper()
	accepted := l.stop()
	w.ready(w.api, w.cdc, w.worker)
	require.Zero(w.t, l.unknown.Load(), "the api was never hurt")
	w.everythingOnce(accepted + w.probes)
	w.firstDeliveriesFollowVersions(audit.settled())
	w.t.Logf("%d events, %d deliveries", accepted+w.probes, len(audit.ids))
}
