package relay

import (
	"context"
	"sync"
)

// Limits of the queue between the source and the loop: enough for the two to overlap, little enough to be forgotten
// when memory is counted.
const (
	queueRows  = 512
	queueBytes = 1 << 20
)

// queue hands rows from the source's goroutine to the loop, many at a time. It is bounded in rows and in bytes (one row
// always fits); put blocks while it is full, which holds the source back through TCP.
type queue struct {
	maxRows, maxBytes int
	ready             chan struct{} // something to take
	space             chan struct{} // room to put

	mu    sync.Mutex
	rows  []Row
	bytes int
	total uint64
}

func newQueue(maxRows, maxBytes int) *queue {
	return &queue{maxRows: maxRows, maxBytes: maxBytes, ready: make(chan struct{}, 1), space: make(chan struct{}, 1)}
}

func (q *queue) put(ctx context.Context, row Row) error {
	for !q.add(row) {
		select {
		case <-q.space:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	signal(q.ready)
	return nil
}

func (q *queue) add(row Row) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.rows) > 0 && (len(q.rows) >= q.maxRows || q.bytes+row.size() > q.maxBytes) {
		return false
	}
	q.rows = append(q.rows, row)
	q.bytes += row.size()
	q.total++
	return true
}

// take gives all that is queued and keeps the emptied slice for the rows to come.
func (q *queue) take(emptied []Row) []Row {
	clear(emptied[:cap(emptied)]) // let the payloads go
	q.mu.Lock()
	rows := q.rows
	q.rows, q.bytes = emptied[:0], 0
	q.mu.Unlock()
	signal(q.space)
	return rows
}

func (q *queue) delivered() uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.total
}

// signal wakes whoever waits, or the next one who will.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
