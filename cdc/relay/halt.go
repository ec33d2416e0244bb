package relay

import "fmt"

// Halt is why a relay stopped for good: going on could lose, invent or reorder events. Only an operator can resolve it.
type Halt struct {
	Reason Reason
	Err    error // what happened, and the statement or action that mends it
}

func (h *Halt) Error() string { return fmt.Sprintf("halted (%s): %v", h.Reason, h.Err) }

// Unwrap returns what happened.
func (h *Halt) Unwrap() error { return h.Err }

// Haltf returns a Halt with a formatted cause.
func Haltf(reason Reason, format string, args ...any) *Halt {
	return &Halt{Reason: reason, Err: fmt.Errorf(format, args...)}
}
