package consume

import (
	"context"
	"slices"

	amqp "github.com/rabbitmq/amqp091-go"
)

// followers are dead letters that are redriven behind the one that they follow, in the order in which they died.
type followers struct {
	byLetter map[string][]amqp.Delivery // held, by the message id of the letter
	sent     map[string]bool            // the letters that were sent
}

func (f *followers) hold(letter string, d amqp.Delivery) {
	f.byLetter[letter] = append(f.byLetter[letter], d)
}

// behind is the letter, and what was held for it behind it. What comes for it from now on need not be held.
func (f *followers) behind(letter amqp.Delivery) []amqp.Delivery {
	all := append([]amqp.Delivery{letter}, f.byLetter[letter.MessageId]...)
	f.sent[letter.MessageId] = true
	delete(f.byLetter, letter.MessageId)
	return all
}

// free are those whose letter is not among the dead ones and blocks nothing any more. The others stay: it is on its way, and
// until it was applied they would die again.
func (f *followers) free(ctx context.Context, w *Worker) ([]amqp.Delivery, error) {
	var free []amqp.Delivery
	for letter, held := range f.byLetter {
		block, err := w.findBlock(ctx, w.db, aggregateKey(held[0]))
		if err != nil {
			return nil, err
		}
		if block.by != letter {
			free = append(free, held...)
		}
	}
	slices.SortFunc(free, func(a, b amqp.Delivery) int { return int(int64(a.DeliveryTag) - int64(b.DeliveryTag)) })
	return free, nil
}
