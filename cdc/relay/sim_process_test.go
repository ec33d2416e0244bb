package relay_test

import (
	"errors"
	"fmt"
	"time"

	"tailbox/cdc/relay"
)

var errTimeout = errors.New("no answer in time")

// process is one instance.
type process struct {
	world    *world
	number   int
	life     int           // grows when it is killed and started again
	frozen   time.Duration // until when
	skew     time.Duration // of its wall clock
	cut      bool          // off from the database
	stopping bool          // told to stop in good order

	watch  *relay.Watch
	tenure *relay.Tenure // nil while it stands by
	lease  relay.Lease
	core   *relay.Core
	from   uint64 // rows before the place that it began at
	read   uint64
	wire   *wire // nil while there is no session
	saved  uint64
	saving bool
	saves  uint64         // number of the last save that was asked for
	late   map[uint64]int // by epoch: rows that it handed over after another had taken the lease
}

func (p *process) name() string { return fmt.Sprintf("process-%d-%d", p.number, p.life) }

// clock is what the process goes by: the time that passes, whatever somebody sets the wall clock to.
func (p *process) clock() time.Time {
	if wallClock {
		return epoch.Add(p.world.now + p.skew)
	}
	return epoch.Add(p.world.now)
}

func (p *process) start() {
	p.watch = relay.NewWatch(p.name(), simTTL)
	p.tenure, p.core, p.wire, p.saving, p.stopping = nil, nil, nil, false, false
	p.late = map[uint64]int{}
	p.world.after(p.world.between(0, time.Second), p, p.look)
	p.world.after(p.world.between(0, time.Second), p, p.connect)
}

// kill ends the process at once, and starts another in its place.
func (p *process) kill() {
	p.dropWire()
	p.tenure = nil
	p.life++
	p.start()
}

// freeze holds the process up. What waits for the end of one freeze must not be overtaken by what comes within a shorter one.
func (p *process) freeze(d time.Duration) {
	p.frozen = max(p.frozen, p.world.now+d)
	p.world.felt.frozen++
}

func (p *process) look() {
	var seen relay.Lease
	w := p.world
	w.ask(p, call{
		do: func() error { seen = w.row; return nil },
		answer: func(err error) {
			switch {
			case err == nil && p.tenure == nil && p.watch.Saw(seen, p.clock()):
				p.acquire(seen)
			default:
				w.after(500*time.Millisecond, p, p.look)
			}
		},
	})
}

func (p *process) acquire(seen relay.Lease) {
	w, asked, name := p.world, p.clock(), p.name()
	var lease relay.Lease
	var from uint64
	w.ask(p, call{
		do: func() error {
			if w.row.Epoch != seen.Epoch || w.row.Beat != seen.Beat {
				return relay.ErrFenced
			}
			for _, other := range w.processes {
				if other.name() != name && other.tenure != nil && other.tenure.Holds(other.clock()) {
					w.violated("%s took the lease while %s could still send", name, other.name())
				}
			}
			w.row = relay.Lease{Epoch: seen.Epoch + 1, Beat: seen.Beat + 1, Holder: name, TTL: simTTL}
			lease, from, w.saves = w.row, w.place, 0
			w.felt.takeovers++
			return nil
		},
		answer: func(err error) {
			if err != nil {
				w.after(500*time.Millisecond, p, p.look)
				return
			}
			p.lead(relay.NewTenure(lease, asked), lease, from)
		},
	})
}

func (p *process) lead(tenure *relay.Tenure, lease relay.Lease, from uint64) {
	p.tenure, p.lease, p.from, p.read, p.saved, p.saving, p.saves = tenure, lease, from, 0, 0, false, 0
	p.core = relay.NewCore(relay.Config{Window: simWindow, WindowBytes: 1 << 20})
	p.core.OnLeading()
	if p.wire != nil {
		p.core.OnSession()
	}
	p.renewAt(simTTL/5, lease)
	p.turn()
}

func (p *process) renewAt(d time.Duration, lease relay.Lease) {
	w := p.world
	w.after(d, p, func() {
		if p.tenure == nil || p.lease.Epoch != lease.Epoch {
			return
		}
		if !p.tenure.Holds(p.clock()) {
			p.stepDown()
			return
		}
		asked := p.clock()
		w.ask(p, call{
			do: func() error { return w.fenced(lease.Epoch, func() { w.row.Beat++ }) },
			answer: func(err error) {
				switch {
				case p.tenure == nil || p.lease.Epoch != lease.Epoch:
				case errors.Is(err, relay.ErrFenced), !p.tenure.Holds(p.clock()):
					p.stepDown()
				case err == nil:
					p.tenure.Renewed(asked)
					p.renewAt(simTTL/5, lease)
				default:
					p.renewAt(simTTL/20, lease)
				}
			},
		})
	})
}

func (p *process) stepDown() {
	p.tenure, p.core = nil, nil
	p.dropWire()
	p.world.after(p.world.between(0, time.Second), p, p.connect)
	p.look()
}

// turn is one turn of the loop: read, send, save.
func (p *process) turn() {
	w := p.world
	if p.tenure == nil {
		return
	}
	for p.core.Room() && p.from+p.read < w.committed {
		p.read++
		p.core.OnRow(row(p.read))
	}
	if p.wire != nil {
		if !p.tenure.Holds(p.clock()) {
			p.stepDown()
			return
		}
		if rows := p.core.Next(nil); len(rows) > 0 {
			p.write(rows)
		}
	}
	p.save()
	if p.stopping && p.core.Idle() && !p.saving && p.saved == p.core.Watermark() {
		p.release()
		return
	}
	epoch := p.lease.Epoch
	w.after(w.between(20*time.Millisecond, 100*time.Millisecond), p, func() {
		if p.tenure != nil && p.lease.Epoch == epoch {
			p.turn()
		}
	})
}

// write hands rows to the session, now, or when a process that was frozen right here goes on.
func (p *process) write(rows []relay.Row) {
	w, to, from := p.world, p.wire, p.from
	if w.chance(40) {
		p.freeze(w.between(0, 3*simTTL))
	}
	epoch := p.lease.Epoch
	w.after(0, p, func() {
		for _, row := range rows {
			to.put(from+row.Seq, row.Seq)
		}
		if w.row.Epoch > epoch {
			if p.late[epoch] += len(rows); p.late[epoch] > simWindow {
				w.violated("%s sent %d rows after its lease had passed on", p.name(), p.late[epoch])
			}
		}
	})
}

func (p *process) save() {
	w := p.world
	mark := p.core.Watermark()
	if checkpointBeforeConfirm {
		mark = p.read
	}
	if p.saving || mark == p.saved {
		return
	}
	p.saving = true
	p.saves++
	lease, place, number := p.lease, p.from+mark, p.saves
	w.ask(p, call{
		do: func() error {
			if lease.Epoch == w.row.Epoch && number < w.saves {
				return relay.ErrFenced // a later one of the same epoch was applied already
			}
			return w.fenced(lease.Epoch, func() {
				w.saves = number
				if place < w.place {
					w.violated("the checkpoint went back from row %d to %d", w.place, place)
				}
				if place > w.queue {
					w.violated("the checkpoint has passed row %d, the queue has got %d", place, w.queue)
				}
				w.place = place
			})
		},
		answer: func(err error) {
			if p.tenure == nil || p.lease.Epoch != lease.Epoch {
				return
			}
			p.saving = false
			switch {
			case errors.Is(err, relay.ErrFenced):
				p.stepDown()
			case err == nil:
				p.saved = mark
			}
		},
	})
}

// release hands the lease over; the process ends and another starts in its place.
func (p *process) release() {
	w, lease := p.world, p.lease
	p.tenure = nil // from here on nothing is sent
	w.ask(p, call{
		do:     func() error { return w.fenced(lease.Epoch, func() { w.row.Holder = "" }) },
		answer: func(error) { p.kill() },
	})
}
