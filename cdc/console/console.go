package console

import (
	"bytes"
	"context"
	"encoding/json"
	"net/url"
	"sync"
	"time"

	"tailbox/cdc/relay"
)

// Config says how much a console keeps and whom it asks.
type Config struct {
	// Interval is the time between two samples, and between two frames for those who watch. Defaults to DefaultInterval.
	Interval time.Duration
	// Keep is how far the history goes back. Defaults to DefaultKeep.
	Keep time.Duration
	// Worker is where a worker answers HTTP, for the page's numbers about what comes behind the exchange. Nil for nowhere.
	Worker *url.URL
	// Exchange and RoutingKey are the settings of these names, shown on the page.
	Exchange, RoutingKey string
	// Admin tells that calls which change something are open to who has the token.
	Admin bool
}

// Defaults of Config.
const (
	DefaultInterval = time.Second
	DefaultKeep     = 15 * time.Minute
)

// Console is what a person watches the relay by: the page, its history and what happens now. All of it is in memory of a
// fixed size, and gone with the process.
type Console struct {
	view     View
	cfg      Config
	latency  latencies
	recent   recent
	history  *history
	watchers watchers
	worker   *worker

	mu       sync.Mutex
	greeting []byte // the part of the last frame that who comes later needs, too
}

// New returns a console that keeps nothing yet: Run does.
func New(view View, cfg Config) *Console {
	if cfg.Interval <= 0 {
		cfg.Interval = DefaultInterval
	}
	if cfg.Keep <= 0 {
		cfg.Keep = DefaultKeep
	}
	return &Console{
		view: view, cfg: cfg,
		recent:   recent{routingKey: view.RoutingKey},
		history:  newHistory(cfg.Keep, cfg.Interval),
		watchers: watchers{open: map[*watcher]struct{}{}},
		worker:   newWorker(cfg.Worker),
	}
}

// Observe takes note of an event that was confirmed. It is quick, and keeps nothing of the row but what a person may see.
func (c *Console) Observe(row *relay.Row, at time.Time) {
	if !row.Repaired { // when that was committed is not known
		c.latency.observe(latency(row, at))
	}
	c.recent.observe(row, at)
}

// Run takes a sample each interval and tells those who watch, until ctx ends. Then it lets them go at once.
func (c *Console) Run(ctx context.Context) error {
	defer c.watchers.close()
	var group sync.WaitGroup
	defer group.Wait()
	group.Go(func() { c.worker.run(ctx, c.watchers.count) })

	ticker := time.NewTicker(c.cfg.Interval)
	defer ticker.Stop()
	var before moment
	var counted Totals
	for {
		now, position := c.view.Now(), c.view.Position()
		m := c.moment(now, position)
		if !before.at.IsZero() {
			m.rates(position.Totals, counted, now.Sub(before.at))
		}
		before, counted = m, position.Totals
		c.history.add(m)
		c.tell(position, m)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (c *Console) moment(now time.Time, p Position) moment {
	m := moment{at: now, state: p.State, lagSeconds: p.Lag.Seconds, lagBytes: p.Lag.Bytes, inFlight: p.Lag.InFlight}
	m.p50, m.p99 = c.latency.take()
	return m
}

func (m *moment) rates(now, before Totals, took time.Duration) {
	per := func(now, before uint64) float64 {
		if took <= 0 || now < before {
			return 0
		}
		return float64(now-before) / took.Seconds()
	}
	m.read = per(now.Read, before.Read)
	m.published = per(now.Published, before.Published)
	m.confirmed = per(now.Confirmed, before.Confirmed)
}

// tell makes one frame of what is new, once for all who watch.
func (c *Console) tell(p Position, m moment) {
	var state bytes.Buffer
	appendEvent(&state, "position", p)
	status := c.view.Relay()
	appendEvent(&state, "binlog", binlogMap(c.view.Source(), c.view.Read().Position, status.ConfirmedAt, status.Saved))
	appendEvent(&state, "worker", c.worker.said())

	fresh, leftOut := c.recent.take()
	frame := bytes.NewBuffer(bytes.Clone(state.Bytes()))
	appendEvent(frame, "sample", json.RawMessage(appendColumns(nil, c.cfg.Interval, []moment{m})))
	if len(fresh)+leftOut > 0 {
		appendEvent(frame, "published", publishedNews{fresh, leftOut})
	}
	c.mu.Lock()
	c.greeting = state.Bytes()
	c.mu.Unlock()
	c.watchers.send(frame.Bytes())
}

// publishedNews is the document of the event published.
type publishedNews struct {
	Events  []published `json:"events"`   // the newest first
	LeftOut int         `json:"left_out"` // how many more there were in the interval
}

// hello is the document of the event hello: what does not change while the process lives.
type hello struct {
	Relay      string  `json:"relay"`
	Exchange   string  `json:"exchange"`
	RoutingKey string  `json:"routing_key"`
	Admin      bool    `json:"admin"`
	Interval   float64 `json:"interval_seconds"`
	Keep       float64 `json:"keep_seconds"`
	Now        string  `json:"now"` // by the relay's clock, for ages
}

// greet is the first frame of one who begins to watch.
func (c *Console) greet() []byte {
	var frame bytes.Buffer
	frame.WriteString("retry: 2000\n\n")
	appendEvent(&frame, "hello", hello{
		Relay: c.view.Name, Exchange: c.cfg.Exchange, RoutingKey: c.cfg.RoutingKey, Admin: c.cfg.Admin,
		Interval: c.cfg.Interval.Seconds(), Keep: c.cfg.Keep.Seconds(), Now: stamp(c.view.Now()),
	})
	c.mu.Lock()
	frame.Write(c.greeting)
	c.mu.Unlock()
	if all := c.recent.all(); len(all) > 0 {
		appendEvent(&frame, "published", publishedNews{Events: all})
	}
	return frame.Bytes()
}

// appendEvent writes one server-sent event. A JSON document has no line break in it, which would end the event.
func appendEvent(out *bytes.Buffer, name string, document any) {
	data, err := json.Marshal(document)
	if err != nil {
		panic("console: " + name + " has no JSON: " + err.Error()) // our own types: numbers and texts
	}
	out.WriteString("event: " + name + "\ndata: ")
	out.Write(data)
	out.WriteString("\n\n")
}
