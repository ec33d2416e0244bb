package consume

import (
	"cmp"
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

// behind is the letter, and what was held for it, and for that, behind it. What comes for them from now on need not be held.
func (f *followers) behind(letter amqp.Delivery) []amqp.Delivery {
	f.sent[letter.MessageId] = true
	return append([]amqp.Delivery{letter}, f.take(letter.MessageId)...)
}

// take is all that was held for a letter, and for that.
func (f *followers) take(letter string) []amqp.Delivery {
	held := f.byLetter[letter]
	delete(f.byLetter, letter)
	all := held
	for _, d := range held {
		f.sent[d.MessageId] = true
		all = append(all, f.take(d.MessageId)...)
	}
	slices.SortFunc(all, byDeath)
	return all
}

// byDeath compares by the place in the dead-letter queue.
func byDeath(a, b amqp.Delivery) int { return cmp.Compare(a.DeliveryTag, b.DeliveryTag) }

// free are those whose letter, the given one or any, is not among the dead ones and blocks nothing any more. The others stay:
// it is on its way, and until it was applied they would die again.
func (f *followers) free(ctx context.Context, w *Worker, letter string) ([]amqp.Delivery, error) {
	dead := map[string]bool{}
	for _, held := range f.byLetter {
		for _, d := range held {
			dead[d.MessageId] = true
		}
	}
	var letters []string
	for by, held := range f.byLetter {
		if dead[by] || letter != "" && by != letter {
			continue
		}
		blocks, err := w.blocks(ctx, aggregateKey(held[0]), by)
		if err != nil {
			return nil, err
		}
		if !blocks {
			letters = append(letters, by)
		}
	}
	var free []amqp.Delivery
	for _, by := range letters {
		free = append(free, f.take(by)...)
	}
	slices.SortFunc(free, byDeath)
	return free, nil
}
