package console

import (
	"sync"
	"sync/atomic"
	"time"

	"tailbox/cdc/relay"
	"tailbox/schema"
)

const (
	recentKept  = 50                    // events that a page shows at most
	recentBurst = 20                    // of each interval these are kept, whatever the rate,
	recentPause = 50 * time.Millisecond // and behind them one in this time
)

// published is one event that the broker confirmed, as a person is shown it: never its payload.
type published struct {
	ID            string  `json:"id"`
	Type          string  `json:"type"`
	AggregateType string  `json:"aggregate_type"`
	RoutingKey    string  `json:"routing_key"`
	Position      string  `json:"position"`
	ConfirmedAt   string  `json:"confirmed_at"`
	Latency       float64 `json:"latency_seconds"` // from commit to confirm
	Parked        bool    `json:"parked,omitempty"`
	Repaired      bool    `json:"repaired,omitempty"` // out of the table: its latency means nothing
}

// recent keeps the last events that were confirmed; of many at once, a sample.
type recent struct {
	routingKey func(*schema.Event) string

	seen atomic.Int64 // events since the last take
	due  atomic.Int64 // what was confirmed before this time is not kept, in nanoseconds since 1970

	mu    sync.Mutex
	ring  [recentKept]published
	kept  int // so far, in all
	shown int // since the last take
}

// observe is called on the relay's own goroutine: under load nearly every call ends at the first return.
func (r *recent) observe(row *relay.Row, at time.Time) {
	r.seen.Add(1)
	if at.UnixNano() < r.due.Load() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.shown++; r.shown >= recentBurst {
		r.due.Store(at.Add(recentPause).UnixNano())
	}
	e := &row.Event
	r.ring[r.kept%recentKept] = published{
		ID: e.ID, Type: e.Type, AggregateType: e.AggregateType, RoutingKey: r.routingKey(e), Position: row.Position,
		ConfirmedAt: stamp(at), Latency: latency(row, at).Seconds(), Parked: row.Parked, Repaired: row.Repaired,
	}
	r.kept++
}

// take gives the events that were kept since the last call, the newest first, and how many were left out.
func (r *recent) take() (fresh []published, leftOut int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fresh = r.last(min(r.shown, recentKept))
	leftOut = max(0, int(r.seen.Swap(0))-len(fresh))
	r.shown = 0
	r.due.Store(0)
	return fresh, leftOut
}

// all gives every event that is kept, the newest first.
func (r *recent) all() []published {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last(min(r.kept, recentKept))
}

func (r *recent) last(n int) []published {
	list := make([]published, 0, n)
	for i := range n {
		list = append(list, r.ring[(r.kept-1-i)%recentKept])
	}
	return list
}

// latency is how long an event took from commit to confirm; the clocks of two machines may say less than nothing.
func latency(row *relay.Row, at time.Time) time.Duration { return max(0, at.Sub(row.CommittedAt)) }
