package relay

import "time"

// Tracer follows rows through the relay. It is called by the relay's own goroutine: it must be quick.
type Tracer interface {
	// Sent is called with a copy of the row, right before it is handed to the session; it may change the event's headers.
	Sent(row *Row, at time.Time)
	// Confirmed is called when the row is confirmed.
	Confirmed(row *Row, at time.Time)
	// Dropped is called when the row goes to the quarantine.
	Dropped(row *Row)
	// Lost is called when what became of the rows that are under way will not be known.
	Lost()
}
