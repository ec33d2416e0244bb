package consume

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"tailbox/schema/topology"
	"tailbox/worker/inbox"
)

// Bounds of the pauses between tries: of a session, of an effect that the database does not take, and of either when it is
// refused, which only a person can mend.
const (
	connectFirst = 250 * time.Millisecond
	connectMost  = 2 * time.Second
	stallFirst   = 50 * time.Millisecond
	stallMost    = 5 * time.Second
	refusedMost  = 30 * time.Second

	healthyAfter  = 10 * time.Second // a session that lasted this long makes the next pause short again
	databaseEvery = 2 * time.Second  // how often readiness asks the database
)

// ErrShutdownTimeout is returned by Run when a stop took longer than ShutdownTimeout: handlers or the broker did not
// answer, and what was in hand was given up. Nothing is lost; messages that were applied may be delivered again, and will
// be found in the inbox.
var ErrShutdownTimeout = errors.New("the stop took too long")

// Run consumes until the context ends, then finishes what is in hand and returns nil. An unreachable server is no error: Run
// goes on trying. It returns after all its goroutines have ended.
func (w *Worker) Run(ctx context.Context) error {
	patient, giveUp := context.WithCancelCause(context.WithoutCancel(ctx))
	defer giveUp(nil)
	release := context.AfterFunc(ctx, func() {
		if sleep(w.cfg.ShutdownTimeout, patient.Done()) {
			giveUp(ErrShutdownTimeout)
		}
	})
	defer release()

	var watching sync.WaitGroup
	watching.Go(func() { w.watchDatabase(ctx) })
	watching.Go(func() { w.pruneInbox(ctx) })
	defer watching.Wait()
	defer w.status.set(StateStopped, "")

	w.status.set(StateConnecting, "")
	pauses := newPauses(connectFirst, connectMost)
	for epoch := uint64(1); ctx.Err() == nil; epoch++ {
		began := time.Now()
		err := w.session(ctx, patient, epoch)
		if ctx.Err() != nil {
			break
		}
		if time.Since(began) > healthyAfter {
			pauses.Reset()
		}
		w.pause(ctx, pauses, err)
	}
	if patient.Err() != nil {
		return context.Cause(patient)
	}
	return nil
}

// session consumes once, from connecting to the end.
//
// Invariant: sessions follow each other. A new one is opened only after every goroutine of the old one has ended, so that no
// two of them ever work on one aggregate.
func (w *Worker) session(ctx, patient context.Context, epoch uint64) error {
	s, err := w.open(ctx, epoch)
	if err != nil {
		return err
	}
	w.status.begin(s)
	defer w.status.end()
	w.log.Info("consuming", zap.String("queue", w.queue.Queue), zap.Uint64("session", epoch))
	err = s.serve(ctx, patient)
	if err != nil && ctx.Err() != nil {
		w.log.Warn("session lost while stopping", zap.Error(err))
	}
	return err
}

// pause tells why there is no session and waits before the next.
func (w *Worker) pause(ctx context.Context, pauses *backoff.ExponentialBackOff, cause error) {
	state := NotConnected
	pauses.MaxInterval = connectMost / 2
	refusal := refusedByBroker(cause)
	if refusal != "" {
		state = refusal
		pauses.MaxInterval = refusedMost / 2
	}
	w.status.set(StateConnecting, state)
	pause := pauses.NextBackOff()
	if refusal != "" {
		w.log.Error("the broker refuses, trying again slowly: check AMQP_URL, the user's rights and the queue's properties",
			reason(refusal), zap.Error(cause), zap.Duration("pause", pause))
	} else {
		w.log.Warn("no connection to the broker, trying again", zap.Error(cause), zap.Duration("pause", pause))
	}
	sleep(pause, ctx.Done())
}

// refusedByBroker names what only a person can mend, or nothing. A socket that was closed during login looks the same as
// a wrong password, hence also these are tried again, from short pauses on.
func refusedByBroker(err error) string {
	if mismatch := (*topology.Mismatch)(nil); errors.As(err, &mismatch) {
		return "topology"
	}
	refused, ok := errors.AsType[*amqp.Error](err)
	if !ok {
		return ""
	}
	switch refused.Code {
	case amqp.AccessRefused:
		return "access_refused"
	case amqp.NotAllowed:
		return "not_allowed"
	case amqp.PreconditionFailed:
		return "precondition_failed"
	case amqp.NotFound:
		return "not_found"
	}
	return ""
}

// watchDatabase keeps what readiness tells about the database. It is not in the path of any message.
func (w *Worker) watchDatabase(ctx context.Context) {
	for known := false; ; known = true {
		bounded, cancel := context.WithTimeout(ctx, databaseEvery)
		err := w.db.PingContext(bounded)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if was := w.status.databaseUp.Swap(err == nil); was != (err == nil) || !known {
			w.tellDatabase(err)
		}
		w.lookForOthers(ctx)
		if !sleep(databaseEvery, ctx.Done()) {
			return
		}
	}
}

// lookForOthers finds out from the inbox whether another process gets the messages that do not come here.
func (w *Worker) lookForOthers(ctx context.Context) {
	if !w.status.idle() || !w.status.databaseUp.Load() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, databaseEvery)
	defer cancel()
	newest, err := inbox.Newest(ctx, w.db, w.cfg.Name)
	if err != nil { // readiness tells of the database's troubles
		return
	}
	if w.status.saw(newest) {
		w.log.Info("standing by: another process of this consumer gets the messages")
	}
}

func (w *Worker) tellDatabase(err error) {
	switch {
	case err == nil:
		w.log.Info("the database answers")
	case refusedByDatabase(err):
		w.log.Error("the database refuses: check MYSQL_DSN and the user's rights", reason(describe(err)))
	default:
		w.log.Warn("the database does not answer", reason(describe(err)))
	}
}
