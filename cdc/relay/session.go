package relay

import "context"

// Publisher opens publishing sessions.
type Publisher interface {
	// Open connects, checks the exchange and returns a session that is ready, or an error. It gives up when ctx ends.
	Open(ctx context.Context) (Session, error)
}

// Session publishes rows in the order given and reports what became of each. It is never repaired: when it is lost,
// what it has not reported is unknown, and a new session takes over.
type Session interface {
	// Publish hands over rows, in order. It never blocks as long as no more than the window are unsettled. The session
	// keeps the slice until the rows are settled.
	Publish(rows []Row)
	// Outcomes reports in the order of Publish. It is closed when the session has ended, after all that it knows.
	Outcomes() <-chan Outcome
	// Err says why the session ended. Valid once Outcomes is closed.
	Err() error
	// Close ends the session in good order until ctx ends, then by force. It returns when all its goroutines have.
	Close(ctx context.Context) error
}

// OutcomeKind is what became of a row, or of the broker.
type OutcomeKind int

// The kinds of Outcome.
const (
	Confirmed OutcomeKind = iota // the broker has every row up to Seq that no other outcome named, each in a queue
	Returned                     // row Seq reached no queue
	Refused                      // the broker said no to row Seq
	Poison                       // row Seq cannot be a message; Err says why
	Blocked                      // the broker is short of memory or disk and takes nothing
	Unblocked                    // it takes messages again
)

// Outcome is one report of a session. Rows before Seq are settled before Seq is.
type Outcome struct {
	Kind OutcomeKind
	Seq  uint64
	Err  error
}

// TopologyError is returned by Publisher.Open, and ends a session, when an exchange or queue is missing or could lose messages.
// Its text says what mends it.
type TopologyError struct{ Err error }

func (e *TopologyError) Error() string { return e.Err.Error() }

// Unwrap returns what the broker said.
func (e *TopologyError) Unwrap() error { return e.Err }
