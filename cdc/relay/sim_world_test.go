package relay_test

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"time"

	"tailbox/cdc/relay"
)

// world is a simulation of two instances of a relay, in a time of its own: the decisions are the real ones (Core, Watch, Tenure),
// everything around them is a model that breaks at random. One seed gives one schedule, always the same.
type world struct {
	random *rand.Rand
	now    time.Duration // true time since the beginning
	events agenda
	count  uint64
	calm   bool // no more faults: everything has to arrive

	committed uint64 // rows in the binlog
	row       relay.Lease
	place     uint64 // the checkpoint: so many rows are behind it
	saves     uint64 // number of the save that the row has of this epoch
	queue     uint64 // rows that the queue has got at least once
	processes []*process
	wrong     error // the first violation of an invariant

	felt felt
}

// felt counts what shows that a schedule was worth something.
type felt struct{ takeovers, fenced, late, frozen, duplicates int }

func (f *felt) add(more felt) {
	f.takeovers += more.takeovers
	f.fenced += more.fenced
	f.late += more.late
	f.frozen += more.frozen
	f.duplicates += more.duplicates
}

const (
	simTTL    = 5 * time.Second
	simWindow = 8
)

// epoch is the time at which every simulation begins.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newWorld(seed uint64) *world {
	w := &world{random: rand.New(rand.NewPCG(seed, 5))}
	for i := range 2 {
		p := &process{world: w, number: i}
		w.processes = append(w.processes, p)
		p.start()
	}
	w.every(300*time.Millisecond, w.commit)
	return w
}

// event is something that happens to a process, or, without one, to the world.
type event struct {
	at      time.Duration
	order   uint64
	process *process
	life    int // of the process that it is meant for: a killed one hears nothing
	do      func()
}

type agenda []event

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	return a[i].at < a[j].at || a[i].at == a[j].at && a[i].order < a[j].order
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)   { *a = append(*a, x.(event)) }
func (a *agenda) Pop() any {
	last := len(*a) - 1
	e := (*a)[last]
	*a = (*a)[:last]
	return e
}

// after does something later. What happens to a frozen process waits until it goes on.
func (w *world) after(d time.Duration, p *process, do func()) {
	e := event{at: w.now + d, order: w.count, process: p, do: do}
	if p != nil {
		e.life = p.life
	}
	w.count++
	heap.Push(&w.events, e)
}

func (w *world) every(d time.Duration, do func()) {
	w.after(d, nil, func() {
		do()
		w.every(d, do)
	})
}

// run lets time pass.
func (w *world) run(d time.Duration) {
	for end := w.now + d; w.wrong == nil && len(w.events) > 0 && w.events[0].at <= end; {
		e := heap.Pop(&w.events).(event)
		w.now = e.at
		p := e.process
		switch {
		case p == nil:
			e.do()
		case p.life != e.life:
		case p.frozen > w.now:
			e.at = p.frozen
			heap.Push(&w.events, e)
		default:
			e.do()
		}
	}
}

func (w *world) violated(format string, args ...any) {
	if w.wrong == nil {
		w.wrong = fmt.Errorf("at %s: %s", w.now, fmt.Sprintf(format, args...))
	}
}

// chance is true once in n times while there are faults.
func (w *world) chance(n int) bool { return !w.calm && w.random.IntN(n) == 0 }

// between is a random duration.
func (w *world) between(least, most time.Duration) time.Duration {
	return least + time.Duration(w.random.Int64N(int64(most-least)))
}

func (w *world) commit() {
	if !w.calm {
		w.committed += uint64(w.random.IntN(6))
	}
}

// trouble does one random thing to one random process.
func (w *world) trouble() {
	p := w.processes[w.random.IntN(len(w.processes))]
	switch w.random.IntN(7) {
	case 0:
		p.kill()
	case 1:
		p.freeze(w.between(0, 3*simTTL))
	case 2:
		p.loseSession()
	case 3: // somebody sets a clock
		p.skew = w.between(-time.Hour, time.Hour)
	case 4:
		p.cut = !p.cut // off from the database, or back
	case 5:
		p.stopping = true
	case 6: // nothing
	}
}

// call is one to the database: what it does there, and what the caller does with the answer.
type call struct {
	do     func() error
	answer func(err error)
}

// ask sends a call to the database. It may be lost on the way, or its answer may be, and it may be applied long after the
// caller gave it up.
func (w *world) ask(p *process, c call) {
	const timeout = 2 * time.Second
	there, back := w.between(0, 20*time.Millisecond), w.between(0, 20*time.Millisecond)
	if w.chance(10) {
		there = w.between(0, 4*simTTL)
		w.felt.late++
	}
	lost := p.cut || w.chance(30)
	life, answered := p.life, false
	give := func(err error) {
		if !answered {
			answered = true
			c.answer(err)
		}
	}
	if !lost {
		w.after(there, nil, func() {
			err := c.do()
			if !w.chance(20) && p.life == life { // one that was killed meanwhile hears nothing
				w.after(back, p, func() { give(err) })
			}
		})
	}
	w.after(timeout, p, func() { give(errTimeout) })
}

// fenced is what the row does for an epoch.
func (w *world) fenced(epoch uint64, do func()) error {
	if epoch != w.row.Epoch {
		w.felt.fenced++
		if !unfencedSave {
			return relay.ErrFenced
		}
	}
	if epoch != w.row.Epoch {
		w.violated("epoch %d changed the row that epoch %d has", epoch, w.row.Epoch)
	}
	do()
	return nil
}

// arrive puts a row into the queue.
func (w *world) arrive(index uint64) {
	switch {
	case index > w.queue+1:
		w.violated("row %d arrived for the first time before row %d", index, w.queue+1)
	case index == w.queue+1:
		w.queue++
	default:
		w.felt.duplicates++
	}
}
