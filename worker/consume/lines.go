package consume

import (
	"sync/atomic"
	"time"
)

// lines are a shard's waiting room for events that wait for one of their aggregate which is in a retry queue: by aggregate, in
// the order in which they came. Only events that are here for the first time stand in line: what was in another queue has a
// place in blocked_aggregates. It belongs to one goroutine; the count is that of the gaps.
type lines struct {
	byKey map[string][]*message // Invariant: none is empty
	count *atomic.Int64         // of all shards
}

func newLines(count *atomic.Int64) *lines {
	return &lines{byKey: map[string][]*message{}, count: count}
}

// some tells whether any event of the aggregate stands in line.
func (l *lines) some(key string) bool { return len(l.byKey[key]) > 0 }

// add lets a message wait: at the end of the line, or at its head when it stood there before.
func (l *lines) add(m *message) {
	line := l.byKey[m.key()]
	if m.since.IsZero() {
		m.since = time.Now()
		line = append(line, m)
	} else {
		line = append([]*message{m}, line...)
	}
	l.byKey[m.key()] = line
	l.count.Add(1)
}

// take takes the first in line; nil when there is none.
func (l *lines) take(key string) *message {
	line := l.byKey[key]
	if len(line) == 0 {
		return nil
	}
	if l.byKey[key] = line[1:]; len(line) == 1 {
		delete(l.byKey, key)
	}
	l.count.Add(-1)
	return line[0]
}

// oldest is the time since when the one that has waited longest waits, and its aggregate; false when none waits.
func (l *lines) oldest() (since time.Time, key string, some bool) {
	for k, line := range l.byKey {
		if !some || line[0].since.Before(since) {
			since, key, some = line[0].since, k, true
		}
	}
	return since, key, some
}
