package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/deploy/services"
)

// workers is a world with two processes of the worker. Messages keep coming while there is a load.
type workers struct {
	*world
	both [2]*services.Service
}

// role is what a worker says of itself: active, standby, idle, or nothing when it does not answer.
func (w *workers) role(s *services.Service) string {
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Second)
	defer cancel()
	var said struct{ Role string }
	if w.call(ctx, http.MethodGet, s.URL("/stats"), "", http.StatusOK, &said) != nil {
		return ""
	}
	return said.Role
}

// has waits until a worker has the role.
func (w *workers) has(s *services.Service, role string, within time.Duration) time.Duration {
	w.t.Helper()
	began := time.Now()
	require.Eventually(w.t, func() bool { return w.role(s) == role }, within, 10*time.Millisecond, "the worker is %s within %s", role, within)
	return time.Since(began)
}

// TestOfTwoWorkersOneTakesOverFromTheOther: SIGKILL of the active one, of the stand-by, or of whichever, under load.
func TestOfTwoWorkersOneTakesOverFromTheOther(t *testing.T) {
	t.Parallel()
	const takeover = 5 * time.Second
	w := &workers{world: setup(t)}
	w.both = [2]*services.Service{w.worker, services.New(w.config("worker", "worker2", "LOG_LEVEL=warn"))}
	t.Cleanup(func() {
		if process := w.both[1].Process(); process != nil {
			_ = process.Kill()
		}
	})
	l := w.load(8, count(4000))
	w.has(w.both[0], "active", takeover)
	w.start(w.both[1])
	w.has(w.both[1], "standby", time.Minute)

	active := 0
	var slowest time.Duration
	for range count(20) {
		require.NoError(t, w.both[active].Process().Kill())
		slowest = max(slowest, w.has(w.both[1-active], "active", takeover))
		w.start(w.both[active])
		require.NoError(t, w.both[active].Process().Kill()) // a stand-by now: nobody notices
		require.NoError(t, w.both[active].Start())
		for range 3 { // and before anybody knows who is which
			victim := w.both[rand.IntN(2)]
			require.NoError(t, victim.Process().Kill())
			require.NoError(t, victim.Start())
			pause(t, time.Duration(rand.IntN(600))*time.Millisecond)
		}
		w.ready(w.both[:]...)
		w.waitFor("one is active and one stands by", time.Minute, func() bool {
			roles := fmt.Sprint(w.role(w.both[0]), " ", w.role(w.both[1]))
			active = map[string]int{"active standby": 0, "standby active": 1}[roles]
			return roles == "active standby" || roles == "standby active"
		})
	}
	accepted := l.stop()
	require.Zero(t, l.unknown.Load(), "the api was never hurt")
	w.everythingOnce(accepted)
	t.Logf("%d events; the slowest takeover took %s", accepted, slowest)
}
