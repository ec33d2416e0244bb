package binlog

import (
	"sync"
	"time"

	"go.uber.org/zap"
)

// notes are what the reader has seen and does not act on: it counts them, and warns of each kind once a minute at most.
type notes struct {
	log *zap.Logger

	mu         sync.Mutex
	seen       Notes
	updated    time.Time // when it was warned last of an update,
	unreadable time.Time // of a statement
}

// Notes count what the reader has seen and does not act on, since the process started.
type Notes struct {
	Updates    uint64 // rows of the outbox that were updated: what was published stays
	Statements uint64 // changes of other tables that were logged as statements: what their triggers did cannot be seen
}

const warnEvery = time.Minute

func (n *notes) update(transaction string) {
	if seen, due := n.count(&n.seen.Updates, &n.updated); due {
		n.log.Warn("a row of the outbox was updated: events are published as they were inserted",
			zap.String("transaction", transaction), zap.Uint64("updates", seen))
	}
}

func (n *notes) statement(transaction string) {
	if seen, due := n.count(&n.seen.Statements, &n.unreadable); due {
		n.log.Warn("a change of another table was logged as a statement: if a trigger or function of it writes to the outbox, that is not seen; "+
			"take the right to change binlog_format from the session's user",
			zap.String("transaction", transaction), zap.Uint64("statements", seen))
	}
}

func (n *notes) count(what *uint64, warned *time.Time) (seen uint64, due bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	*what++
	now := time.Now()
	if due = now.Sub(*warned) >= warnEvery; due {
		*warned = now
	}
	return *what, due
}

func (n *notes) soFar() Notes {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.seen
}
