package consume

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"tailbox/worker/inbox"
)

// verdict is what one try of a message came to.
type verdict struct {
	kind    kind
	problem problem // failed, permanent, gap
	missing uint64  // gap
	err     error   // stalled
	by      string  // blocked, behind: the message id of the event that comes first
}

type kind int

const (
	applied   kind = iota // committed: inbox row and effect
	duplicate             // its effect was there before
	dropped               // committed: inbox row, no effect
	gap                   // too early
	failed                // try again later, counted
	permanent             // never try again
	forgotten             // nobody knows whether it was applied: its inbox row may have been pruned
	blocked               // follows an event of its aggregate to the dead letters
	behind                // an event of its aggregate that comes first is in a retry queue
	stalled               // the database would not, the message is not to blame: try again, not counted
)

// commits tells whether the transaction that came to this is to be committed.
func (v verdict) commits() bool { return v.kind == applied || v.kind == duplicate || v.kind == dropped }

// errCommitUnknown marks a commit whose answer did not arrive: it happened, or it did not.
var errCommitUnknown = errors.New("the commit's outcome is unknown")

// try applies the message in one transaction.
//
// Invariant: the inbox row and the effect commit together, and nothing of a try that does not end in applied, duplicate or
// dropped stays in the database (unless its commit's answer was lost, which the next try finds out from the inbox).
func (w *Worker) try(ctx context.Context, m *message, handler Handler) verdict {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.HandleTimeout)
	defer cancel()

	// READ COMMITTED takes no locks on gaps between keys, so that first events of different aggregates cannot deadlock.
	tx, err := w.db.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		return verdict{kind: stalled, err: fmt.Errorf("begin: %w", err)}
	}
	defer func() { _ = tx.Rollback() }() // nothing to do after a commit

	seen, err := inbox.Record(ctx, tx, w.cfg.Name, m.event.ID, m.hash)
	switch {
	case errors.Is(err, inbox.ErrIDReused) && m.dropped:
		seen = false // it was another event
	case errors.Is(err, inbox.ErrIDReused):
		return verdict{kind: permanent, problem: problem{code: codeIDReused}}
	case err != nil:
		return judge(ctx, err)
	}
	block, err := w.findBlock(ctx, tx, m) // behind the inbox, see storeBlock
	if err != nil {
		return judge(ctx, err)
	}
	outcome := verdict{kind: duplicate}
	switch {
	case seen && !block.some:
		return outcome
	case seen:
	case m.dropped:
		outcome = w.drop(ctx, tx, m)
	default:
		outcome = w.handle(ctx, tx, m, handler, block)
	}
	if !outcome.commits() {
		return outcome
	}
	if block.some {
		if err := w.unblock(ctx, tx, m); err != nil {
			return judge(ctx, err)
		}
	}
	if err := tx.Commit(); err != nil {
		if v := judge(ctx, err); v.kind != stalled {
			return v
		}
		return verdict{kind: stalled, err: fmt.Errorf("commit: %w: %w", errCommitUnknown, err)}
	}
	return outcome
}

// handle makes the effect of a message that the inbox does not know, unless something holds it back.
func (w *Worker) handle(ctx context.Context, tx *sql.Tx, m *message, handler Handler, block block) verdict {
	if !block.own { // else it has not been applied since it failed: that would have ended the block
		old, err := w.mayBeForgotten(ctx, tx, m)
		if err != nil {
			return judge(ctx, err)
		}
		if old {
			return verdict{kind: forgotten, problem: problem{code: codeForgotten}}
		}
	}
	switch {
	case block.by == "":
	case block.dead:
		return verdict{kind: blocked, problem: problem{code: codeBlocked}, by: block.by}
	default:
		return verdict{kind: behind, problem: problem{code: codeBehind}, by: block.by}
	}
	if err := call(ctx, handler, tx, m); err != nil {
		return judge(ctx, err)
	}
	return verdict{kind: applied}
}

// drop lets the handlers know that they will not get this event.
func (w *Worker) drop(ctx context.Context, tx *sql.Tx, m *message) verdict {
	if err := call(ctx, w.cfg.Drop, tx, m); err != nil {
		return judge(ctx, err)
	}
	return verdict{kind: dropped}
}

// call runs the handler; a panic of it is this message's fault and must not take the others along.
func call(ctx context.Context, handler Handler, tx *sql.Tx, m *message) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = &panicError{fmt.Sprintf("%T", cause)} // the value itself may hold anything
		}
	}()
	return handler(ctx, tx, m.event)
}

type panicError struct{ kind string }

func (e *panicError) Error() string { return "the handler panicked with " + e.kind }

// judge reads a verdict from an error of the handler or the database.
func judge(ctx context.Context, err error) verdict {
	if _, ok := errors.AsType[Duplicate](err); ok {
		return verdict{kind: duplicate}
	}
	if early, ok := errors.AsType[Gap](err); ok {
		missing := early.MissingVersion()
		return verdict{kind: gap, missing: missing, problem: gapProblem(missing)}
	}
	if refusal, ok := errors.AsType[Permanent](err); ok {
		return verdict{kind: permanent, problem: problem{code: refusal.PermanentReason()}}
	}
	if panicked, ok := errors.AsType[*panicError](err); ok {
		return verdict{kind: failed, problem: problem{codePanicked, panicked.kind}}
	}
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return verdict{kind: failed, problem: problem{code: codeTimeout}}
	case ctx.Err() != nil, Transient(err): // a stop ran out of time, or the database is to blame
		return verdict{kind: stalled, err: err}
	}
	return verdict{kind: failed, problem: problem{codeFailed, describe(err)}}
}

func gapProblem(missing uint64) problem {
	return problem{codeGap, fmt.Sprintf("version %d has not been applied", missing)}
}
