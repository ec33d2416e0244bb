package e2e_test

import (
	"context"
	"net"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"
)

// recoveryLimit is how long an event may take from commit to effect once the broker takes messages again.
const recoveryLimit = 5 * time.Second

// handshake waits until the broker's port takes an AMQP connection.
func (w *world) handshake() {
	w.t.Helper()
	w.waitFor("the broker's port to take a connection", 2*time.Minute, func() bool {
		ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Second)
		defer cancel()
		conn, err := amqp.DialConfig(w.stack.Rabbit.URL("/"), amqp.Config{Dial: func(network, addr string) (net.Conn, error) {
			raw, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if err == nil {
				err = raw.SetDeadline(time.Now().Add(5 * time.Second))
			}
			return raw, err
		}})
		if err != nil {
			return false
		}
		_ = conn.Close() // it was only a question
		return true
	})
}

// brokerIsBack starts the broker, and measures from the moment its port takes a connection until an event that is posted
// then has its effect. What was committed meanwhile goes before it.
func (w *world) brokerIsBack(after string) {
	w.t.Helper()
	started := make(chan error, 1)
	go func() { started <- w.stack.Rabbit.Start(w.t.Context()) }()
	w.handshake()
	w.recovers(after)
	require.NoError(w.t, <-started)
}

// recovers posts a customer and requires that its effect is there within the limit.
func (w *world) recovers(after string) {
	w.t.Helper()
	w.recoversSince(time.Now(), after)
}

func (w *world) recoversSince(began time.Time, after string) {
	w.t.Helper()
	id, err := w.post(w.t.Context(), 1)
	require.NoError(w.t, err)
	w.probes++
	w.waitFor("recovery after "+after, time.Minute, func() bool {
		return w.number("SELECT COUNT(*) FROM customer_profiles WHERE customer_id = ?", id) == 1
	})
	took := time.Since(began)
	w.t.Logf("recovered %v after %s", took.Round(time.Millisecond), after)
	require.LessOrEqual(w.t, took, recoveryLimit, "recovery after %s", after)
}

// goesOn runs one fault of a series, after a moment of load, and requires that the load went on meanwhile.
func (l *load) goesOn(fault func()) {
	l.w.t.Helper()
	before := l.accepted.Load()
	l.w.waitFor("load before the fault", time.Minute, func() bool { return l.accepted.Load() > before+50 })
	before = l.accepted.Load()
	fault()
	require.Greater(l.w.t, l.accepted.Load(), before, "the load went on")
}
