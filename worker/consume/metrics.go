package consume

import (
	"fmt"
	"math"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
)

// Outcomes of a message, as /stats and the metric tell them.
const (
	outcomeApplied   = "applied"
	outcomeDuplicate = "duplicate"
	outcomeRetried   = "retried"
	outcomeDead      = "dead"
	outcomeDropped   = "dropped"
)

// metrics are all that the worker counts and times.
type metrics struct {
	messages *prometheus.CounterVec
	handle   prometheus.Histogram
	endToEnd prometheus.Histogram
	pruned   prometheus.Counter
	totals   map[string]*atomic.Uint64 // the same counts for /stats, which a counter cannot be asked for
}

func newMetrics(registry prometheus.Registerer, dead *atomic.Int64) (*metrics, error) {
	m := &metrics{
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tailbox_worker_messages_total",
			Help: "Messages settled: applied, found applied before (duplicate), sent to a retry queue (retried) or to the dead-letter queue (dead), or passed over because a person gave them up (dropped).",
		}, []string{"outcome"}),
		handle: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "tailbox_worker_handle_seconds",
			Help:    "Time of one try of a message: its transaction, with inbox row and effect, whatever came of it.",
			Buckets: prometheus.ExponentialBuckets(0.00025, 2, 16), // to 8 s
		}),
		endToEnd: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "tailbox_worker_end_to_end_seconds",
			Help:    "Time from the event's creation, by the writer's clock, to the commit of its effect, by the worker's.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 20), // to 9 min
		}),
		pruned: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "tailbox_worker_inbox_pruned_total",
			Help: "Inbox rows deleted because they were older than the retention.",
		}),
		totals: map[string]*atomic.Uint64{},
	}
	for _, outcome := range []string{outcomeApplied, outcomeDuplicate, outcomeRetried, outcomeDead, outcomeDropped} {
		m.totals[outcome] = &atomic.Uint64{}
		m.messages.WithLabelValues(outcome) // shown from the start, as zero
	}
	if registry == nil {
		return m, nil
	}
	letters := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "tailbox_worker_dead_letters",
		Help: "Messages in the dead-letter queue, as the broker said last; NaN until it has.",
	}, func() float64 {
		if n := dead.Load(); n >= 0 {
			return float64(n)
		}
		return math.NaN()
	})
	for _, c := range []prometheus.Collector{letters, m.messages, m.handle, m.endToEnd, m.pruned} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) count(outcome string) {
	m.messages.WithLabelValues(outcome).Inc()
	m.totals[outcome].Add(1)
}
