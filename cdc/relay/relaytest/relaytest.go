// Package relaytest has stand-ins for what the relay works with, which fail on demand, and the contract that each
// interface of package relay has to keep, to be run against the stand-in and against the real thing.
package relaytest

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"tailbox/cdc/relay"
	"tailbox/schema"
)

// ErrBroken is the error of everything that was broken on demand.
var ErrBroken = errors.New("broken on demand")

// Log is the transactions that sources read: the binlog of the stand-ins.
type Log struct {
	mu     sync.Mutex
	txns   [][]schema.Event
	more   chan struct{} // closed and replaced when a transaction is committed
	events int
}

// NewLog returns a log without transactions.
func NewLog() *Log { return &Log{more: make(chan struct{})} }

// Commit adds a transaction of n events and returns their ids.
func (l *Log) Commit(n int) (ids []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var txn []schema.Event
	for range n {
		l.events++
		e := schema.Event{ID: fmt.Sprintf("event-%06d", l.events), AggregateType: "customer", AggregateID: "1",
			Type: "CustomerCreated", Payload: []byte("{}"), CreatedAt: time.Now()}
		txn, ids = append(txn, e), append(ids, e.ID)
	}
	l.txns = append(l.txns, txn)
	close(l.more)
	l.more = make(chan struct{})
	return ids
}

// Index is how many events are before a position.
func (l *Log) Index(p relay.Position) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := int(p.SkipRows)
	for _, txn := range l.txns[:p.Pos] {
		n += len(txn)
	}
	return n
}
