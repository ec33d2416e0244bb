package consume

import (
	"cmp"
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

// Roles of a worker that consumes, among the processes of its consumer. The broker gives all messages to one of them and does
// not say to which: a process knows its role from what it has seen since it connected.
const (
	RoleActive  = "active"  // messages came
	RoleStandby = "standby" // none came, and another process has applied some
	RoleIdle    = "idle"    // neither
)

// Reasons why a worker is not ready, beside those for which the broker refuses.
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

	role  string
	inbox string // its newest row when the session began; empty as long as nobody has looked

	queued, dead atomic.Int64 // messages in the queues, as the broker said last; negative when it has not yet

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
	s.mu.Lock()
	defer s.mu.Unlock()
	s.role, s.inbox = RoleIdle, ""
}

// active notes that a message has come.
func (s *status) active() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.role = RoleActive
}

// saw notes the newest row of the inbox, while no message has come, and tells whether that makes this process a stand-by.
func (s *status) saw(newest string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.role != RoleIdle:
	case s.inbox == "":
		s.inbox = newest
	case s.inbox != newest:
		s.role = RoleStandby
		return true
	}
	return false
}

// idle tells whether the role is not known yet.
func (s *status) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.role == RoleIdle
}

func (s *status) end() {
	s.waiting.Store(nil)
	s.inFlight.Store(0) // the broker takes back what was not settled
	s.mu.Lock()
	defer s.mu.Unlock()
	s.role = ""
}

// Stats is a worker's answer to GET /stats.
type Stats struct {
	Consumer    string            `json:"consumer"`
	State       string            `json:"state"`
	Reason      string            `json:"reason"`
	Role        string            `json:"role"`         // empty without a session
	Messages    map[string]uint64 `json:"messages"`     // by outcome, since the start
	WaitingGaps int64             `json:"waiting_gaps"` // events that wait in memory for an earlier one of their aggregate
	InFlight    int64             `json:"in_flight"`    // messages delivered and not settled
	Queued      *int64            `json:"queued"`       // messages that wait in the queue; null until the broker has said
	DeadLetters *int64            `json:"dead_letters"` // the same for the dead-letter queue
	LastEventAt *string           `json:"last_event_at"`
}

// Stats tells what the worker is doing. It answers from memory.
func (w *Worker) Stats() Stats {
	s := &w.status
	s.mu.Lock()
	defer s.mu.Unlock()
	stats := Stats{
		Consumer: s.consumer, State: s.state, Reason: s.reason, Role: s.role,
		Queued: known(&s.queued), DeadLetters: known(&s.dead),
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

// known is a number that the broker has told, or nil.
func known(n *atomic.Int64) *int64 {
	if n := n.Load(); n >= 0 {
		return &n
	}
	return nil
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
		reasons = append(reasons, cmp.Or(s.reason, NotConnected), NotConsuming)
	}
	if !s.databaseUp.Load() || s.stalled.Load() > 0 {
		reasons = append(reasons, NoDatabase)
	}
	return reasons
}
