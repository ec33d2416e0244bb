package e2e_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/deploy/services"
)

// TestTheBrokerMayDieUnderLoad: SIGKILL and polite stops in turn. Each time an event posted when the port is open again has
// its effect within the limit.
func TestTheBrokerMayDieUnderLoad(t *testing.T) {
	t.Parallel()
	w := setup(t)
	audit := w.audit()
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
	w.survived(l, audit, 2*rounds)
}

func TestConnectionsMayBeClosedByTheBrokerUnderLoad(t *testing.T) {
	t.Parallel()
	w := setup(t)
	audit := w.audit()
	l := w.load(8, 0)
	w.recovers("the start")
	times := count(50)
	for range times {
		l.goesOn(func() {
			before := w.position().Totals.Reconnects
			require.NoError(t, w.stack.Rabbit.CloseConnections(t.Context()))
			w.recovers("the connections were closed")
			require.Greater(t, w.position().Totals.Reconnects, before, "the relay lost its connection")
		})
	}
	w.survived(l, audit, times)
}

// survived ends the load and checks what must hold after faults of the broker: none of ours was restarted, the relay lost at
// least so many sessions, nothing else was lost, and all happened once and in order.
func (w *world) survived(l *load, audit *audit, sessions int) {
	w.t.Helper()
	accepted := l.stop()
	w.ready(w.api, w.cdc, w.worker)
	for _, s := range []*services.Service{w.api, w.cdc, w.worker} {
		require.Equal(w.t, -1, s.Process().ExitCode(), "no service of ours was restarted")
	}
	require.Zero(w.t, l.unknown.Load(), "the api was never hurt")
	require.GreaterOrEqual(w.t, w.position().Totals.Reconnects, sessions, "the faults were felt")
	w.everythingOnce(accepted + w.probes)
	w.firstDeliveriesFollowVersions(audit.settled())
	w.t.Logf("%d events, %d published, %d reconnects", accepted+w.probes, w.position().Totals.Published, w.position().Totals.Reconnects)
}
