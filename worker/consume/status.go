package consume

import (
	"sync"
	"sync/atomic"
	"time"

	"tailbox/schema"
)

// States of a worker, as GET /stats tells them.
const (
	StateStarting   = "starting"   // Run has not been called yet
	StateConnecting = "connecting" // no broker, or the broker refuses; the reason says which
	StateConsuming  = "consuming"
	StateDraining   = "draining" // stopping: finishes what it has in hand
	StateStopped    = "stopped"
)

// Reasons why a worker is not ready.
const (
	NotConnected = "broker_not_connected"
	NotConsuming = "consumer_not_active"
	NoDatabase   = "database_not_answering"
)

// status is what the worker tells about itself. Safe for concurrent use.
type status struct {
	consumer string

	mu     sync.Mutex
	state  string
	reason string
	last   time.Time // when an event was applied last

	databaseUp atomic.Bool
	stalled    atomic.Int64 // shards that the database keeps waiting
	inFlight   atomic.Int64 // messages delivered and not settled, those that wait among them
	waiting    atomic.Pointer[atomic.Int64]
}

func (s *status) set(state, reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state, s.reason = state, reason
}

func (s *status) applied(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = at
}

// begin makes the numbers those of a new session; end makes them those of none.
func (s *status) begin(session *session) {
	s.waiting.Store(&session.waiting)
	s.set(StateConsuming, "")
}

func (s *status) end() {
	s.waiting.Store(nil)
	s.inFlight.Store(0) // the broker takes back what was not settled
}

// Stats is a worker's answer to GET /stats.
type Stats struct {
	Consumer    string            `json:"consumer"`
	State       string            `json:"state"`
	Reason      string            `json:"reason"`
	Messages    map[string]uint64 `json:"messages"`     // by outcome, since the start
	WaitingGaps int64             `json:"waiting_gaps"` // events that came too early and wait in memory
	InFlight    int64             `json:"in_flight"`    // messages delivered and not settled
	LastEventAt *string           `json:"last_event_at"`
}

// Stats tells what the worker is doing. It answers from memory.
func (w *Worker) Stats() Stats {
	s := &w.status
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := Stats{
		Consumer: s.consumer, State: s.state, Reason: s.reason,
		Messages: map[string]uint64{}, InFlight: s.inFlight.Load(),
	}
	for outcome, total := range w.metrics.totals {
		stats.Messages[outcome] = total.Load()
	}
	if waiting := s.waiting.Load(); waiting != nil {
		stats.WaitingGaps = waiting.Load()
	}
	if !s.last.IsZero() {
		at := s.last.UTC().Format(schema.TimeFormat)
		stats.LastEventAt = &at
	}
	return stats
}

// Unready tells why the worker is not doing its job; nothing when it is. It answers from memory.
func (w *Worker) Unready() []string {
	s := &w.status
	s.mu.Lock()
	defer s.mu.Unlock()
	var reasons []string
	switch s.state {
	case StateConsuming:
	case StateDraining:
		reasons = append(reasons, NotConsuming)
	default:
		reasons = append(reasons, NotConnected, NotConsuming)
	}
	if !s.databaseUp.Load() || s.stalled.Load() > 0 {
		reasons = append(reasons, NoDatabase)
	}
	return reasons
}
