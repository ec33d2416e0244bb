package consume

import (
	"context"

	amqp "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"
)

// Dropped is what Drop did.
type Dropped struct {
	Dropped   int `json:"dropped"`   // copies of the dead letter, one as a rule
	Redriven  int `json:"redriven"`  // those that followed it
	Remaining int `json:"remaining"` // dead letters that were not looked at, because time ran out: call again
}

// Drop gives a dead letter up for good: it goes back to the work queue with a mark, and those that it blocks behind it. There
// it is not applied; in one transaction the inbox and the handlers (see Config.Drop) note it as passed, and its aggregate is no
// longer blocked. A copy of the event that comes later is a duplicate. A call that breaks off can be repeated, as Redrive can.
func (w *Worker) Drop(ctx context.Context, messageID string) (Dropped, error) {
	given := 0
	done, err := w.redrive(ctx, messageID, func(d amqp.Delivery) amqp.Table {
		if d.MessageId != messageID {
			return nil
		}
		given++
		w.log.Warn("dropping a dead letter", zap.String("event_id", d.MessageId), zap.String("type", d.Type))
		return amqp.Table{HeaderDropped: true}
	})
	return Dropped{Dropped: given, Redriven: max(0, done.Redriven-given), Remaining: done.Remaining}, err
}
