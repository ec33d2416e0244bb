package console

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tailbox/cdc/relay"
)

// metric is one row of the table of metrics: its name behind tailbox_relay_, what it says, and where it comes from.
type metric struct {
	name   string
	help   string
	kind   prometheus.ValueType
	labels []string
	values func(p Position, v View) []sample
}

type sample struct {
	labels []string
	value  float64
}

// metrics are all that is read from the position. They exist from the start, at zero, but for the runway, whose zero is an
// alarm.
var metrics = []metric{
	{"state", "1 for the state that the relay is in, 0 for the others.", prometheus.GaugeValue, []string{"state"}, states},
	{"lag_seconds", "Age of the oldest commit that is not confirmed.", prometheus.GaugeValue, nil,
		func(p Position, _ View) []sample { return one(p.Lag.Seconds) }},
	{"lag_bytes", "Bytes of binlog between what is confirmed and the server's end.", prometheus.GaugeValue, nil,
		func(p Position, _ View) []sample { return one(float64(p.Lag.Bytes)) }},
	{"in_flight", "Events that are read and not confirmed without a gap.", prometheus.GaugeValue, nil,
		func(p Position, _ View) []sample { return one(float64(p.Lag.InFlight)) }},
	{"events_total", "Events by the stage that they reached; one sent twice is published twice.", prometheus.CounterValue, []string{"stage"}, stages},
	{"checkpoint_age_seconds", "Time since this process saved the checkpoint, or since it started.", prometheus.GaugeValue, nil, checkpointAge},
	{"runway_bytes", "Bytes of binlog between the oldest that the server has and the checkpoint: 0 when it is purged, missing when that is not known.",
		prometheus.GaugeValue, nil, runwayBytes},
	{"runway_seconds", "Time until the server may purge the checkpoint's file for its age; missing while it may not.",
		prometheus.GaugeValue, nil, runwaySeconds},
	{"reconnects_total", "Connections that were lost and made again.", prometheus.CounterValue, []string{"peer"},
		func(_ Position, v View) []sample {
			t := v.Relay().Totals
			return []sample{{[]string{"mysql"}, float64(t.SourceReconnects)}, {[]string{"rabbitmq"}, float64(t.BrokerReconnects)}}
		}},
	{"ignored_total", "Changes that were seen and not acted on: updates of outbox rows, and changes of other tables that were logged as statements.",
		prometheus.CounterValue, []string{"kind"},
		func(_ Position, v View) []sample {
			n := v.Read().Notes
			return []sample{{[]string{"update"}, float64(n.Updates)}, {[]string{"statement"}, float64(n.Statements)}}
		}},
	{"deleted_total", "Outbox rows that retention deleted.", prometheus.CounterValue, nil,
		func(p Position, _ View) []sample { return one(float64(p.Totals.Deleted)) }},
	{"leader", "1 when this process is the one that relays.", prometheus.GaugeValue, nil,
		func(p Position, _ View) []sample { return one(truth(p.Leader.Me)) }},
	{"takeovers_total", "How often this process became the one that relays.", prometheus.CounterValue, nil,
		func(p Position, _ View) []sample { return one(float64(p.Leader.Takeovers)) }},
	{"epoch", "Epoch of the lease, as this process saw it last.", prometheus.GaugeValue, nil,
		func(p Position, _ View) []sample { return one(float64(p.Leader.Epoch)) }},
}

// Collector gives the metrics of a relay to Prometheus, and Latency those that are observed event by event.
type Collector struct {
	view    View
	started time.Time
	descs   []*prometheus.Desc
	// Latency is tailbox_relay_commit_to_confirm_seconds.
	Latency prometheus.Histogram
}

var _ prometheus.Collector = (*Collector)(nil)

// NewCollector returns the collector of a relay.
func NewCollector(view View) *Collector {
	c := &Collector{view: view, started: view.Now()}
	for _, m := range metrics {
		c.descs = append(c.descs, prometheus.NewDesc("tailbox_relay_"+m.name, m.help, m.labels, nil))
	}
	c.Latency = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name:    "tailbox_relay_commit_to_confirm_seconds",
		Help:    "Time from the commit of an event to its confirm; exact to the second only where the server logs no finer time.",
		Buckets: []float64{.001, .002, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
	})
	return c
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(out chan<- *prometheus.Desc) {
	for _, desc := range c.descs {
		out <- desc
	}
	c.Latency.Describe(out)
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(out chan<- prometheus.Metric) {
	p := c.view.Position()
	if p.Checkpoint.SavedAt == "" {
		p.Checkpoint.SavedAt = stamp(c.started)
	}
	for i, m := range metrics {
		for _, s := range m.values(p, c.view) {
			out <- prometheus.MustNewConstMetric(c.descs[i], m.kind, s.value, s.labels...)
		}
	}
	c.Latency.Collect(out)
}

func states(p Position, _ View) (samples []sample) {
	for _, state := range relay.States {
		samples = append(samples, sample{[]string{string(state)}, truth(state == p.State)})
	}
	return samples
}

func stages(p Position, _ View) []sample {
	return []sample{
		{[]string{"read"}, float64(p.Totals.Read)},
		{[]string{"published"}, float64(p.Totals.Published)},
		{[]string{"confirmed"}, float64(p.Totals.Confirmed)},
		{[]string{"returned"}, float64(p.Totals.Returned)},
		{[]string{"parked"}, float64(p.Totals.Parked)},
		{[]string{"nacked"}, float64(p.Totals.Nacked)},
		{[]string{"quarantined"}, float64(p.Totals.Quarantined)},
		{[]string{"repaired"}, float64(p.Totals.Repaired)},
	}
}

func checkpointAge(p Position, v View) []sample {
	at, err := time.Parse(time.RFC3339Nano, p.Checkpoint.SavedAt)
	if err != nil {
		return one(0)
	}
	return one(max(0, v.Now().Sub(at).Seconds()))
}

func runwayBytes(p Position, _ View) []sample {
	if !p.Runway.known {
		return nil
	}
	return one(float64(p.Runway.Bytes))
}

func runwaySeconds(p Position, _ View) []sample {
	if p.Runway.Seconds == nil {
		return nil
	}
	return one(*p.Runway.Seconds)
}

func one(value float64) []sample { return []sample{{value: value}} }

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
