package e2e_test

import (
	"bytes"
	"context"
	"database/sql"
	"strings"
	"sync"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/deploy/faults"
	"tailbox/deploy/services"
	"tailbox/schema"
	"tailbox/schema/schematest"
)

// lane is a relay and a worker with a database and a virtual host of their own on the servers of a world, so that many
// faults can be tried side by side. Both reach the broker through a proxy each. Events are inserted by the test itself.
type lane struct {
	*world
	relayLink, workerLink *faults.Proxy
	feed                  context.CancelFunc
	feeding               sync.WaitGroup
	fed                   int // by the feeder; read it once it has ended
}

// lane builds a lane whose services run and are ready.
func (w *world) lane(name string) *lane {
	w.t.Helper()
	name = strings.ReplaceAll(name, " ", "_")
	l := &lane{world: &world{t: w.t, stack: w.stack, vhost: name, logs: map[string]*bytes.Buffer{}}}
	_, err := w.db.ExecContext(w.t.Context(), "CREATE DATABASE "+name+" CHARACTER SET utf8mb4")
	require.NoError(w.t, err)
	l.db, err = sql.Open("mysql", w.stack.MySQL.DSN(name))
	require.NoError(w.t, err)
	_, err = schema.Migrate(w.t.Context(), l.db)
	require.NoError(w.t, err)
	require.NoError(w.t, w.stack.Rabbit.CreateVhost(w.t.Context(), name))
	l.relayLink, l.cdc = l.linked("cdc")
	l.workerLink, l.worker = l.linked("worker")
	w.t.Cleanup(l.stop)
	l.start(l.worker, l.cdc)
	return l
}

// linked is a service whose way to the broker is a proxy.
func (l *lane) linked(name string) (*faults.Proxy, *services.Service) {
	l.t.Helper()
	proxy, err := faults.New(l.stack.Rabbit.Addr())
	require.NoError(l.t, err)
	cfg := l.config(name, l.vhost+" "+name, "LOG_LEVEL=warn", "CONCURRENCY=2", "MYSQL_DSN=root@tcp("+l.stack.MySQL.Addr()+")/"+l.vhost)
	cfg.AMQPURL = "amqp://guest:guest@" + proxy.Addr() + "/" + l.vhost
	return proxy, services.New(cfg)
}

func (l *lane) stop() {
	if l.feed != nil {
		l.stopFeed()
	}
	for _, s := range []*services.Service{l.cdc, l.worker} {
		if s.Process() != nil {
			_ = s.Process().Kill() // what it would do in a polite stop is not asked here
		}
	}
	for _, proxy := range []*faults.Proxy{l.relayLink, l.workerLink} {
		_ = proxy.Close()
	}
	_ = l.db.Close()
	l.tell()
}

// startFeed inserts the events of customers, one transaction each: each customer is created and changed twice.
func (l *lane) startFeed(every time.Duration) {
	ctx, cancel := context.WithCancel(l.t.Context())
	l.feed = cancel
	l.feeding.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for ring := make([]schema.Event, 10); ; l.fed++ {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			last := &ring[l.fed%len(ring)]
			*last = follower(*last)
			if err := insert(context.WithoutCancel(ctx), l.db, true, *last); err != nil {
				l.t.Errorf("feed %s: %v", l.vhost, err)
				return
			}
		}
	})
}

// follower is the customer's next event, or, after three, the first of another customer.
func follower(before schema.Event) schema.Event {
	if before.ID == "" || before.AggregateVersion == 3 {
		return schematest.Event()
	}
	return schematest.Event(func(e *schema.Event) {
		e.AggregateID, e.AggregateVersion, e.Type = before.AggregateID, before.AggregateVersion+1, "CustomerUpdated"
	})
}

func (l *lane) stopFeed() {
	l.feed()
	l.feeding.Wait()
}
