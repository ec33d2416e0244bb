package consume

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"tailbox/deploy/ops"
)

// confirmTimeout bounds the wait for a confirm: a quorum queue without its majority gives no answer at all.
const confirmTimeout = 30 * time.Second

var errNotRouted = errors.New("a retry or dead-letter queue is missing: the broker returned a message")

// errRefused is a queue's refusal of a message, which has gone nowhere: it is full by somebody's policy, or not to be reached.
var errRefused = errors.New("refused by the broker")

// publisher hands messages over to retry and dead-letter queues. It has a connection of its own, because a broker short of
// memory or disk stops reading from connections that publish, and acknowledgements must still get through.
type publisher struct {
	*link
	mu       sync.Mutex
	returns  <-chan amqp.Return
	blocking <-chan amqp.Blocking
	returned bool // Invariant: once set, nothing published on this link counts as handed over
}

// openPublisher opens a publisher for at most that many goroutines.
func openPublisher(ctx context.Context, turn ops.Turn, name string, goroutines int) (*publisher, error) {
	l, err := dial(ctx, turn, name)
	if err != nil {
		return nil, err
	}
	p := &publisher{link: l}
	// Each goroutine has one message under way and empties the channel after it: the library never finds it full, where it
	// would drop returns.
	p.blocking = l.conn.NotifyBlocked(make(chan amqp.Blocking, 8))
	p.returns = l.ch.NotifyReturn(make(chan amqp.Return, goroutines))
	if err := l.bounded(ctx, setupTimeout, func() error { return l.ch.Confirm(false) }); err != nil {
		l.abort()
		return nil, fmt.Errorf("switch confirms on: %w", err)
	}
	return p, nil
}

// publish returns nil when the queue has the message, and errRefused when it has not and may be asked again. After any other
// error it is unknown whether it does, and the session with this publisher has to end.
func (p *publisher) publish(ctx context.Context, queue string, msg amqp.Publishing) error {
	p.mu.Lock()
	confirm, err := p.ch.PublishWithDeferredConfirm("", queue, true, false, msg)
	p.mu.Unlock()
	if err != nil {
		return fmt.Errorf("publish to %q: %w", queue, err)
	}

	switch acked, err := p.confirmed(ctx, confirm); {
	case err != nil:
		return fmt.Errorf("wait for the confirm of %q: %w", queue, err)
	case !acked && p.ch.IsClosed(): // the library answers in the broker's place, after it noted that
		return fmt.Errorf("publish to %q: the connection was lost", queue)
	case !acked:
		return fmt.Errorf("publish to %q: %w", queue, errRefused)
	}
	return p.routed()
}

// confirmed waits for the confirm: a bounded time, not counting that in which the broker is short of memory or disk.
func (p *publisher) confirmed(ctx context.Context, confirm *amqp.DeferredConfirmation) (acked bool, err error) {
	for {
		bounded, cancel := context.WithTimeout(ctx, confirmTimeout)
		acked, err = confirm.WaitContext(bounded)
		cancel()
		if err == nil || ctx.Err() != nil || !p.blocked.Load() {
			return acked, err
		}
	}
}

// routed tells whether the broker has returned nothing so far: it confirms a message that reached no queue too, right
// after returning it, so that the return is here by now. Returns name no message; one spoils all that was published.
func (p *publisher) routed() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		select {
		case _, open := <-p.returns:
			if !open {
				return nil
			}
			p.returned = true
		default:
			if p.returned {
				return errNotRouted
			}
			return nil
		}
	}
}
