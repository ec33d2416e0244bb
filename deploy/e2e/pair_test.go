package e2e_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/deploy/faults"
	"tailbox/deploy/services"
)

// leaseTTL is short, so that the tests are; patience is what a takeover may take beyond it.
const (
	leaseTTL = 2 * time.Second
	patience = 2 * time.Second
	// standbyWindow is the relays' WINDOW in these tests.
	standbyWindow = 100
)

// pair is a world with two instances of the relay.
type pair struct {
	*world
	cdcs [2]*services.Service
}

// standbyWorld builds a world with two instances that may be reached through the environment given for each.
func standbyWorld(t *testing.T, change ...func(p *pair, i int, cfg *services.Config)) *pair {
	t.Helper()
	p := &pair{world: setup(t, option{noStart: true})}
	for i := range p.cdcs {
		cfg := p.config("cdc", fmt.Sprint("cdc", i), "LEASE_TTL="+leaseTTL.String(), fmt.Sprint("WINDOW=", standbyWindow))
		for _, f := range change {
			f(p, i, &cfg)
		}
		p.cdcs[i] = services.New(cfg)
		t.Cleanup(func() {
			if process := p.cdcs[i].Process(); process != nil {
				_ = process.Resume()
				_ = process.Kill()
			}
		})
	}
	p.cdc = p.cdcs[0]
	p.start(p.api, p.worker, p.cdcs[0])
	p.leads(p.cdcs[0], time.Minute)
	p.start(p.cdcs[1])
	p.cdc = nil // the pair looks after its own
	return p
}

// other is the other instance.
func (p *pair) other(one *services.Service) *services.Service {
	if p.cdcs[0] == one {
		return p.cdcs[1]
	}
	return p.cdcs[0]
}

// standing is what an instance says of the lease.
type standing struct {
	State  string
	Reason string
	Leader struct {
		ID        string
		Me        bool
		Takeovers int
	}
}

// takeovers is how often an instance has taken the lease since it was started.
func (p *pair) takeovers(s *services.Service) (n int) {
	p.t.Helper()
	require.Eventually(p.t, func() bool {
		said, ok := p.asks(s)
		n = said.Leader.Takeovers
		return ok
	}, 20*time.Second, 20*time.Millisecond)
	return n
}

// asks gives an instance's own word; ok is false when it does not answer.
func (p *pair) asks(s *services.Service) (said standing, ok bool) {
	ctx, cancel := context.WithTimeout(p.t.Context(), time.Second)
	defer cancel()
	return said, p.call(ctx, http.MethodGet, s.URL("/position"), "", http.StatusOK, &said) == nil
}

// leads waits until the instance relays, and returns how long that took.
func (p *pair) leads(s *services.Service, within time.Duration) time.Duration {
	p.t.Helper()
	began := time.Now()
	require.Eventually(p.t, func() bool {
		said, ok := p.asks(s)
		return ok && said.Leader.Me && said.State == "streaming"
	}, within, 20*time.Millisecond, "the instance relays within %s", within)
	return time.Since(began)
}

// leader is the instance that relays now.
func (p *pair) leader() *services.Service {
	p.t.Helper()
	var leading *services.Service
	require.Eventually(p.t, func() bool {
		for _, s := range p.cdcs {
			if said, ok := p.asks(s); ok && said.Leader.Me && said.State == "streaming" {
				leading = s
			}
		}
		return leading != nil
	}, time.Minute, 20*time.Millisecond)
	return leading
}

// holder is who has the lease, as the table says.
func (p *pair) holder() (name string) {
	p.t.Helper()
	require.NoError(p.t, p.db.QueryRowContext(p.t.Context(), "SELECT holder FROM relay_checkpoint WHERE relay = 'default'").Scan(&name))
	return name
}

// trickle keeps events coming until the function it returns is called, which tells how many were committed.
func (p *pair) trickle() (stop func() int) {
	l := p.load(4, 0)
	return l.stop
}

// behind is how many messages the queue has got since the event that the checkpoint names: what a takeover sends again.
func (p *pair) behind(a *audit) int {
	p.t.Helper()
	id, routed := p.checkpointed(), a.read()
	for i := len(routed) - 1; i >= 0; i-- {
		if routed[i] == id {
			return len(routed) - 1 - i
		}
	}
	return len(routed)
}

func repeated(ids []string) int {
	seen := map[string]bool{}
	for _, id := range ids {
		seen[id] = true
	}
	return len(ids) - len(seen)
}

// proxy is a link to an address that the test may hurt.
func (w *world) proxy(target string) *faults.Proxy {
	w.t.Helper()
	p, err := faults.New(target)
	require.NoError(w.t, err)
	w.t.Cleanup(func() { require.NoError(w.t, p.Close()) })
	return p
}
