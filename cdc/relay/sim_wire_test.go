package relay_test

import (
	"errors"
	"time"

	"tailbox/cdc/relay"
)

// wire is one session: what was written arrives in order, and what arrived is confirmed. When it breaks, some of what was
// written arrives all the same, later, and nobody hears of it.
type wire struct {
	process *process
	life    int
	written []sentRow // and not arrived
	moving  bool
	cut     bool
	left    int           // how many still arrive after the cut
	told    time.Duration // when the last confirm arrives: they come in order
}

type sentRow struct{ index, seq uint64 }

func (p *process) connect() {
	if p.wire != nil {
		return
	}
	p.wire = &wire{process: p, life: p.life}
	if p.core != nil {
		p.core.OnSession()
	}
}

func (p *process) loseSession() {
	if p.wire == nil {
		return
	}
	p.dropWire()
	if p.core != nil {
		p.core.OnSessionLost(errors.New("lost"))
	}
	p.world.after(p.world.between(0, time.Second), p, p.connect)
}

func (p *process) dropWire() {
	if w := p.wire; w != nil {
		w.cut, w.left = true, 0
		if n := len(w.written); n > 0 {
			w.left = p.world.random.IntN(n + 1)
		}
		p.wire = nil
	}
}

func (w *wire) put(index, seq uint64) {
	if w.cut {
		return
	}
	w.written = append(w.written, sentRow{index, seq})
	w.move()
}

// move lets the next row arrive, some time later.
func (w *wire) move() {
	if w.moving || len(w.written) == 0 || w.cut && w.left == 0 {
		return
	}
	w.moving = true
	world := w.process.world
	delay := world.between(0, 10*time.Millisecond)
	if world.chance(50) {
		delay = world.between(0, 2*simTTL)
	}
	world.after(delay, nil, func() {
		w.moving = false
		if w.cut {
			if w.left == 0 {
				return
			}
			w.left--
		}
		sent := w.written[0]
		w.written = w.written[1:]
		world.arrive(sent.index)
		w.told = max(w.told, world.now+world.between(0, 10*time.Millisecond))
		world.after(w.told-world.now, w.process, func() { w.confirm(sent.seq) })
		w.move()
	})
}

func (w *wire) confirm(seq uint64) {
	if p := w.process; !w.cut && p.wire == w && p.core != nil && p.life == w.life {
		p.core.OnOutcome(relay.Outcome{Kind: relay.Confirmed, Seq: seq}, ignore)
	}
}
