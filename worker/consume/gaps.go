package consume

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"
)

// gaps is a shard's waiting room for events that came too early, by aggregate. It belongs to one goroutine; only the count
// is shared by all shards of a session.
type gaps struct {
	byKey map[string]*group
	count *atomic.Int64 // of all shards
}

// group are the waiting events of one aggregate.
type group struct {
	missing uint64     // the version that has to be applied before any of them
	waiting []*message // Invariant: never empty, in order of version
}

func newGaps(count *atomic.Int64) *gaps { return &gaps{byKey: map[string]*group{}, count: count} }

// missing is the version that an aggregate's waiting events wait for, or 0 when none wait.
func (g *gaps) missing(key string) uint64 {
	if group := g.byKey[key]; group != nil {
		return group.missing
	}
	return 0
}

// add lets a message wait for a version.
func (g *gaps) add(m *message, missing uint64) {
	waiters := g.byKey[m.key()]
	if waiters == nil {
		waiters = &group{}
		g.byKey[m.key()] = waiters
	}
	waiters.missing = missing
	at, _ := slices.BinarySearchFunc(waiters.waiting, m, func(a, b *message) int {
		if order := cmp.Compare(a.event.AggregateVersion, b.event.AggregateVersion); order != 0 {
			return order
		}
		return -1 // behind those of its own version
	})
	waiters.waiting = slices.Insert(waiters.waiting, at, m)
	g.count.Add(1)
}

// takeFirst takes the lowest version that waits, the next one to be applied; nil when none waits. Those that stay wait for it
// from then on: what was missing has come.
func (g *gaps) takeFirst(key string) *message {
	m := g.take(key, 0)
	if group := g.byKey[key]; group != nil {
		group.missing = max(group.missing, m.event.AggregateVersion)
	}
	return m
}

// takeLast takes the highest version that waits, the last one to be applied; nil when none waits.
func (g *gaps) takeLast(key string) *message {
	if group := g.byKey[key]; group != nil {
		return g.take(key, len(group.waiting)-1)
	}
	return nil
}

// takeOlder takes one that has waited since before the given time, the lowest version of its aggregate first; nil when
// there is none.
func (g *gaps) takeOlder(than time.Time) (m *message, missing uint64) {
	for key, group := range g.byKey {
		for at, waiting := range group.waiting {
			if !waiting.since.After(than) {
				return g.take(key, at), group.missing
			}
		}
	}
	return nil, 0
}

// takeAny takes one, whichever; nil when none waits.
func (g *gaps) takeAny() *message {
	for key := range g.byKey {
		return g.takeFirst(key)
	}
	return nil
}

// oldest is the time since when the one that has waited longest waits; false when none waits.
func (g *gaps) oldest() (oldest time.Time, some bool) {
	for _, group := range g.byKey {
		for _, m := range group.waiting {
			if !some || m.since.Before(oldest) {
				oldest, some = m.since, true
			}
		}
	}
	return oldest, some
}

func (g *gaps) take(key string, at int) *message {
	group := g.byKey[key]
	if group == nil {
		return nil
	}
	m := group.waiting[at]
	group.waiting = slices.Delete(group.waiting, at, at+1)
	if len(group.waiting) == 0 {
		delete(g.byKey, key)
	}
	g.count.Add(-1)
	return m
}
