package console

import (
	"math"
	"strconv"
	"sync"
	"time"

	"tailbox/cdc/relay"
)

// moment is how the relay did in one interval. Rates are events per second; latencies are seconds, NaN when nothing was
// confirmed.
type moment struct {
	at                         time.Time
	state                      relay.State
	lagSeconds                 float64
	lagBytes                   uint64
	inFlight                   int
	read, published, confirmed float64
	p50, p99                   float64
}

// history is the moments of the last minutes, in a ring that never grows.
type history struct {
	interval time.Duration

	mu   sync.Mutex
	ring []moment
	next int // where the next one goes: the oldest one's place
	full bool
}

func newHistory(keep, interval time.Duration) *history {
	return &history{interval: interval, ring: make([]moment, max(1, keep/interval))}
}

func (h *history) add(m moment) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ring[h.next] = m
	h.next++
	if h.next == len(h.ring) {
		h.next, h.full = 0, true
	}
}

// json is the document of GET /history: the moments from the oldest on, one array for each column, as charts take them.
func (h *history) json() []byte {
	h.mu.Lock()
	ordered := make([]moment, 0, len(h.ring))
	if h.full {
		ordered = append(ordered, h.ring[h.next:]...)
	}
	ordered = append(ordered, h.ring[:h.next]...)
	h.mu.Unlock()
	return appendColumns(make([]byte, 0, 256+80*len(ordered)), h.interval, ordered)
}

// columns are the arrays of the document, each with the digits behind the point that its numbers are worth.
var columns = []struct {
	name   string
	digits int
	of     func(m *moment) float64
}{
	{"at", 3, func(m *moment) float64 { return float64(m.at.UnixMilli()) / 1000 }},
	{"state", 0, func(m *moment) float64 { return float64(stateIndex(m.state)) }},
	{"lag_seconds", 4, func(m *moment) float64 { return m.lagSeconds }},
	{"lag_bytes", 0, func(m *moment) float64 { return float64(m.lagBytes) }},
	{"in_flight", 0, func(m *moment) float64 { return float64(m.inFlight) }},
	{"read_per_second", 1, func(m *moment) float64 { return m.read }},
	{"published_per_second", 1, func(m *moment) float64 { return m.published }},
	{"confirmed_per_second", 1, func(m *moment) float64 { return m.confirmed }},
	{"latency_p50_seconds", 6, func(m *moment) float64 { return m.p50 }},
	{"latency_p99_seconds", 6, func(m *moment) float64 { return m.p99 }},
}

// appendColumns writes the document by hand: it has thousands of numbers, and json.Marshal knows no null among floats.
func appendColumns(out []byte, interval time.Duration, moments []moment) []byte {
	out = append(out, `{"interval_seconds":`...)
	out = strconv.AppendFloat(out, interval.Seconds(), 'f', -1, 64)
	out = append(out, `,"states":[`...)
	for i, state := range relay.States {
		if i > 0 {
			out = append(out, ',')
		}
		out = strconv.AppendQuote(out, string(state))
	}
	out = append(out, ']')
	for _, column := range columns {
		out = append(out, ',')
		out = strconv.AppendQuote(out, column.name)
		out = append(out, ':', '[')
		for i := range moments {
			if i > 0 {
				out = append(out, ',')
			}
			if value := column.of(&moments[i]); math.IsNaN(value) {
				out = append(out, "null"...)
			} else {
				out = strconv.AppendFloat(out, value, 'f', column.digits, 64)
			}
		}
		out = append(out, ']')
	}
	return append(out, '}')
}

// stateIndex is the state's place in the document's states, -1 for one that is not among them.
func stateIndex(state relay.State) int {
	for i, s := range relay.States {
		if s == state {
			return i
		}
	}
	return -1
}
