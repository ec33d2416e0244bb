package relay

import "context"

// Source reads committed outbox rows. One goroutine calls Begin and Stream; the others may be called from any.
type Source interface {
	// Begin forgets everything and makes the next Stream start at the position; the zero Position lets the source's
	// own START setting choose. Rows are numbered from 1 again.
	Begin(from Position)
	// Stream delivers rows one by one, in commit order, until ctx ends, deliver returns an error or the stream breaks,
	// and returns why. The next call goes on behind the last row that was delivered. A *Halt says that going on would
	// not be safe. A large transaction is never held in memory as a whole.
	Stream(ctx context.Context, deliver func(Row) error) error
	// Connected tells whether a stream is under way and has heard from the server.
	Connected() bool
	// Confirmed gives the place behind row seq, one that was delivered since Begin, and how many transactions that are not
	// the relay's own it has passed. It never goes down from call to call: the source forgets what is before it. ok is false while there is no such place yet (inside a snapshot or a
	// repair).
	Confirmed(seq uint64) (place Position, passed uint64, ok bool)
	// Repairing tells, while there is no place yet, that this is because of a gap in the binlog, which is being filled from
	// the outbox table, and not because of START.
	Repairing() bool
}
