package consume

import (
	"context"
	"errors"
	"fmt"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"tailbox/schema"
)

// deadFor bounds one call that looks at the dead letters, below the time that an HTTP server gives an answer.
const deadFor = 10 * time.Second

// ErrNoDeadLetter is returned by Redrive when no dead letter has the message id: it was redriven before, or it never died.
var ErrNoDeadLetter = errors.New("no such dead letter")

// DeadLetter is what DeadLetters tells of a message: never its payload.
type DeadLetter struct {
	MessageID        string `json:"message_id"`
	Type             string `json:"type"`
	AggregateType    string `json:"aggregate_type"`
	AggregateID      string `json:"aggregate_id"`
	AggregateVersion int64  `json:"aggregate_version"`
	Reason           string `json:"reason"`
	Attempts         int64  `json:"attempts"`
	BlockedBy        string `json:"blocked_by"` // the message id of the earlier event that it only follows, or empty
	FailedAt         string `json:"failed_at"`  // RFC 3339 in UTC; empty when the broker itself sent it here
	Dropped          bool   `json:"dropped"`    // it was given up, and that failed
}

// Redriven is what Redrive did.
type Redriven struct {
	Redriven  int `json:"redriven"`
	Remaining int `json:"remaining"` // dead letters that were not looked at, because time ran out: call again
}

// DeadLetters lists at most so many dead letters, the oldest first, and tells how many there are. They stay where they are.
func (w *Worker) DeadLetters(ctx context.Context, limit int) (letters []DeadLetter, total int, err error) {
	letters = []DeadLetter{}
	err = w.browse(ctx, func(b *browser) error {
		for len(letters) < limit {
			d, some, err := b.next(ctx)
			if err != nil {
				return err
			}
			if !some {
				break
			}
			letters = append(letters, letterOf(d))
		}
		total, err = b.ahead()
		total += len(letters)
		return err
	})
	return letters, total, err
}

func letterOf(d amqp.Delivery) DeadLetter {
	text := func(header string) string { s, _ := d.Headers[header].(string); return s }
	return DeadLetter{
		MessageID: d.MessageId, Type: d.Type,
		AggregateType: text(schema.HeaderAggregateType), AggregateID: text(schema.HeaderAggregateID),
		AggregateVersion: max(0, integer(d.Headers[schema.HeaderAggregateVersion])),
		Reason:           text(HeaderError), Attempts: max(0, integer(d.Headers[HeaderAttempts])), FailedAt: text(HeaderFailedAt), BlockedBy: text(HeaderBlockedBy),
		Dropped: d.Headers[HeaderDropped] == true,
	}
}

// Redrive sends a dead letter and those that it blocks back to the work queue, or all, each once, if the id is empty, in the order in
// which they died. There they count as new: they pass the inbox and the handler's order check, which makes redriving safe to
// repeat. What follows a letter goes behind it wherever it stands, and stays when the letter is neither here nor applied. An
// event that comes back before one of its aggregate that failed earlier has been applied waits behind that in the retry
// queues, or follows it to the dead letters once more. An error after some were sent leaves those sent.
//
// Invariant: a dead letter is taken off its queue only after the broker confirmed that the work queue has it. A crash in
// between leaves it in both.
func (w *Worker) Redrive(ctx context.Context, messageID string) (Redriven, error) {
	return w.redrive(ctx, messageID, func(amqp.Delivery) amqp.Table { return nil })
}

// RedriveOld is Redrive for dead letters of which the caller knows that they were not applied, however old they are.
func (w *Worker) RedriveOld(ctx context.Context, messageID string) (Redriven, error) {
	return w.redrive(ctx, messageID, func(amqp.Delivery) amqp.Table { return amqp.Table{HeaderAcceptOld: true} })
}

// redrive sends back the letter and what it blocks, or all, each with the headers that it is given on the way. A letter that
// was redriven before, and died later than what follows it, may stand behind that; these are held until it was sent.
func (w *Worker) redrive(ctx context.Context, messageID string, headers func(amqp.Delivery) amqp.Table) (done Redriven, err error) {
	until := time.Now().Add(deadFor)
	err = w.browse(ctx, func(b *browser) error {
		f := &followers{byLetter: map[string][]amqp.Delivery{}, sent: map[string]bool{}}
		send := func(letters ...amqp.Delivery) error {
			for _, d := range letters {
				if err := b.sendBack(ctx, d, headers(d)); err != nil {
					return err
				}
				done.Redriven++
			}
			return nil
		}
		for time.Now().Before(until) {
			d, some, err := b.next(ctx)
			if err != nil {
				return err
			}
			if !some {
				free, err := f.free(ctx, w, messageID)
				return errors.Join(err, send(free...))
			}
			by, _ := d.Headers[HeaderBlockedBy].(string)
			switch {
			case by != "" && d.MessageId != messageID && !f.sent[by]:
				f.hold(by, d)
			case by != "" || messageID == "" || d.MessageId == messageID:
				if err := send(f.behind(d)...); err != nil {
					return err
				}
			}
		}
		done.Remaining, err = b.ahead()
		return err
	})
	if err == nil && messageID != "" && done == (Redriven{}) {
		err = ErrNoDeadLetter
	}
	return done, err
}

// browser goes once through the dead letters, from the oldest on. It holds what it passes, so that it sees nothing twice.
type browser struct {
	w    *Worker
	link *publisher
	id   string // this look's own
	open tags   // what it has got and not sent back
}

// browse connects, lets look, and gives back what stays.
func (w *Worker) browse(ctx context.Context, look func(*browser) error) error {
	w.dead.Lock()
	defer w.dead.Unlock()
	ctx, cancel := context.WithTimeout(ctx, deadFor+closeTimeout)
	defer cancel()
	link, err := openPublisher(ctx, w.brokers.Turn(), "tailbox worker "+w.cfg.Name+" (looks at dead letters)", 1)
	if err != nil {
		w.log.Warn("dead letters cannot be reached", zap.Error(err))
		return err
	}
	defer link.abort()
	err = link.bounded(ctx, deadFor+closeTimeout, func() error {
		return (&browser{w: w, link: link, id: schema.NewID()}).run(look)
	})
	if err != nil {
		w.log.Warn("looking at the dead letters broke off", zap.Error(err))
		return err
	}
	return link.close(ctx)
}

func (b *browser) run(look func(*browser) error) error {
	if err := look(b); err != nil {
		return err
	}
	if len(b.open) == 0 {
		return nil
	}
	// A nack and not the channel's end, which RabbitMQ 4.3 counts as a failed delivery.
	if err := b.link.ch.Nack(b.open[len(b.open)-1], true, true); err != nil {
		return fmt.Errorf("give back dead letters: %w", err)
	}
	return nil
}

// next is the next dead letter, until one comes that this look has sent back and that died again: those that were there at the
// start were before it. Neither clocks can tell them, which differ, nor the queue's length: for a moment it leaves out what
// somebody has just given back.
func (b *browser) next(ctx context.Context) (d amqp.Delivery, some bool, err error) {
	if ctx.Err() != nil {
		return d, false, ctx.Err()
	}
	if d, some, err = b.link.ch.Get(b.w.queue.DeadQueue(), false); err != nil {
		return d, false, fmt.Errorf("get dead letter: %w", err)
	}
	if some {
		b.open.add(d.DeliveryTag)
	}
	return d, some && d.Headers[headerRedrive] != b.id, nil
}

// ahead counts the dead letters that were not looked at.
func (b *browser) ahead() (int, error) {
	q, err := b.link.ch.QueueDeclarePassive(b.w.queue.DeadQueue(), true, false, false, false, nil)
	if err != nil {
		return 0, fmt.Errorf("count dead letters: %w", err)
	}
	return q.Messages, nil
}

func (b *browser) sendBack(ctx context.Context, d amqp.Delivery, more amqp.Table) error {
	if err := b.w.revive(ctx, d); err != nil {
		return err
	}
	msg := copyOf(d, more)
	msg.Headers[headerRedrive] = b.id
	if err := b.link.publish(ctx, b.w.queue.Queue, msg); err != nil {
		return err
	}
	if err := b.link.ch.Ack(d.DeliveryTag, false); err != nil {
		return fmt.Errorf("take redriven message off the dead letters: %w", err)
	}
	b.open.settle([]uint64{d.DeliveryTag})
	b.w.log.Info("redriven", zap.String("event_id", d.MessageId), zap.String("type", d.Type))
	return nil
}
