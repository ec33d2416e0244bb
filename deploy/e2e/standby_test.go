package e2e_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/deploy/faults"
	"tailbox/deploy/mysql"
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
		ID    string
		Epoch uint64
		Me    bool
	}
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

// row is the lease as the table has it.
func (p *pair) row() (holder string, epoch uint64) {
	p.t.Helper()
	require.NoError(p.t, p.db.QueryRowContext(p.t.Context(), "SELECT holder, epoch FROM relay_checkpoint WHERE relay = 'default'").Scan(&holder, &epoch))
	return holder, epoch
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

func TestAKilledLeaderIsReplacedWithinTheLease(t *testing.T) {
	t.Parallel()
	p := standbyWorld(t)
	audit, stop := p.audit(), p.trickle()
	var longest time.Duration
	for range count(50) {
		leader := p.leader()
		pause(t, time.Duration(rand.IntN(500))*time.Millisecond)
		require.NoError(t, leader.Process().Kill())
		behind, before := p.behind(audit), repeated(audit.ids)
		longest = max(longest, p.leads(p.other(leader), leaseTTL+patience))
		require.Less(t, behind, 2*standbyWindow, "the window, and what was not saved yet")
		require.LessOrEqual(t, repeated(audit.read())-before, behind+standbyWindow, "a takeover sends no more than that again")
		require.NoError(t, leader.Start())
		p.ready(leader)
	}
	t.Logf("the longest takeover took %s of at most %s", longest, leaseTTL+patience)
	p.everythingOnce(stop())
	p.firstDeliveriesFollowVersions(audit.settled())
}

func TestAFrozenLeaderComesBackAsAStandby(t *testing.T) {
	t.Parallel()
	p := standbyWorld(t)
	audit, stop := p.audit(), p.trickle()
	for range count(50) {
		leader := p.leader()
		pause(t, time.Duration(rand.IntN(300))*time.Millisecond)
		require.NoError(t, leader.Process().Pause())
		heir := p.other(leader)
		p.leads(heir, leaseTTL+patience)
		pause(t, 3*leaseTTL-leaseTTL-time.Duration(rand.IntN(500))*time.Millisecond)
		holder, epoch := p.row()
		behind, before := p.behind(audit), repeated(audit.ids)
		require.NoError(t, leader.Process().Resume())
		require.Eventually(t, func() bool {
			said, ok := p.asks(leader)
			return ok && said.State == "standby" && said.Leader.ID == holder
		}, 20*time.Second, 20*time.Millisecond, "it says that it stands by, and for whom")
		nowHolder, nowEpoch := p.row()
		require.Equal(t, holder, nowHolder)
		require.Equal(t, epoch, nowEpoch, "no flapping")
		require.LessOrEqual(t, repeated(audit.read())-before, behind+standbyWindow, "what the zombie still sends is at most a window")
		said, _ := p.asks(heir)
		require.True(t, said.Leader.Me)
	}
	p.everythingOnce(stop())
	p.firstDeliveriesFollowVersions(audit.settled())
}

func TestARollingRestartMakesNoDuplicateAndNoGap(t *testing.T) {
	t.Parallel()
	p := standbyWorld(t)
	audit, stop := p.audit(), p.trickle()
	var longest time.Duration
	for range count(50) {
		leader := p.leader()
		pause(t, time.Duration(rand.IntN(300))*time.Millisecond)
		began := time.Now()
		require.NoError(t, leader.Process().Signal(syscall.SIGTERM))
		p.leads(p.other(leader), 10*time.Second)
		longest = max(longest, time.Since(began))
		require.NoError(t, leader.Process().Wait(t.Context()))
		require.Zero(t, leader.Process().ExitCode())
		require.NoError(t, leader.Start())
		p.ready(leader)
	}
	require.Less(t, longest, 2*time.Second, "from SIGTERM until the other relays")
	t.Logf("the longest gap was %s", longest)
	p.everythingOnce(stop())
	routed := audit.settled()
	require.Zero(t, repeated(routed), "no event was published twice")
	p.firstDeliveriesFollowVersions(routed)
}

// TestALeaderThatIsCutOffIsReplacedOnce cuts the leader off from the database, the broker or both, by links that swallow.
func TestALeaderThatIsCutOffIsReplacedOnce(t *testing.T) {
	t.Parallel()
	var database, broker [2]*faults.Proxy
	p := standbyWorld(t, func(p *pair, i int, cfg *services.Config) {
		database[i], broker[i] = p.proxy(p.stack.MySQL.Addr()), p.proxy(p.stack.Rabbit.Addr())
		cfg.MySQLAddr = database[i].Addr()
		cfg.AMQPURL = strings.Replace(p.stack.Rabbit.URL("/"), p.stack.Rabbit.Addr(), broker[i].Addr(), 1)
	})
	audit, stop := p.audit(), p.trickle()
	for _, cut := range []struct {
		what             string
		database, broker bool
	}{{"database", true, false}, {"broker", false, true}, {"both", true, true}} {
		leader := p.leader()
		i := 0
		if leader == p.cdcs[1] {
			i = 1
		}
		_, epoch := p.row()
		swallow := func(on bool) {
			for _, d := range []faults.Direction{faults.ToServer, faults.ToClient} {
				database[i].Swallow(d, on && cut.database)
				broker[i].Swallow(d, on && cut.broker)
			}
		}
		swallow(true)
		if cut.database {
			p.leads(p.other(leader), leaseTTL+patience+5*time.Second)
		} else {
			// The lease is not about the broker: the leader keeps it, says that the broker is away, and goes on when it is back.
			p.waitFor("the leader to miss the broker", 30*time.Second, func() bool {
				said, ok := p.asks(leader)
				return ok && said.Leader.Me && said.State == "blocked"
			})
		}
		pause(t, 2*leaseTTL)
		_, now := p.row()
		wanted := epoch
		if cut.database {
			wanted++
		}
		require.Equal(t, wanted, now, "cut off from %s: no flapping", cut.what)
		swallow(false)
		database[i].Reset()
		broker[i].Reset()
		p.ready(p.cdcs[0], p.cdcs[1])
	}
	p.everythingOnce(stop())
	p.firstDeliveriesFollowVersions(audit.settled())
}

// TestClocksThatAreSetMakeNoTakeover: the database's clock jumps by a day for one instance after the other.
func TestClocksThatAreSetMakeNoTakeover(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for what, skew := range map[string]time.Duration{"ahead": 24 * time.Hour, "behind": -24 * time.Hour} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			p := standbyWorld(t, func(p *pair, i int, cfg *services.Config) {
				if i == 1 { // the standby's sessions live in another time
					cfg.Env = append(cfg.Env, fmt.Sprintf("MYSQL_DSN=cdc:%s@tcp(%s)/%s?timestamp=%d",
						mysql.Password("cdc"), p.stack.MySQL.Addr(), mysql.Database, now.Add(skew).Unix()))
				}
			})
			_, epoch := p.row()
			pause(t, 3*leaseTTL)
			_, still := p.row()
			require.Equal(t, epoch, still, "the standby does not take the lease of a leader that lives")

			leader := p.leader()
			require.NoError(t, leader.Process().Kill())
			p.leads(p.other(leader), leaseTTL+patience)
			require.NoError(t, leader.Start())
			p.ready(leader)
			_, epoch = p.row()
			pause(t, 3*leaseTTL)
			_, still = p.row()
			require.Equal(t, epoch, still, "nor the other way round")
		})
	}
}

// proxy is a link to an address that the test may hurt.
func (w *world) proxy(target string) *faults.Proxy {
	w.t.Helper()
	p, err := faults.New(target)
	require.NoError(w.t, err)
	w.t.Cleanup(func() { require.NoError(w.t, p.Close()) })
	return p
}
