// Package console is the relay's HTTP side: where it stands (/position), whether it is well (/healthz, /readyz) and its
// numbers (/metrics). It only reads what the relay and the source know of themselves, so every answer is immediate, even
// while MySQL or RabbitMQ are away.
package console

import (
	"time"

	"tailbox/cdc/binlog"
	"tailbox/cdc/checkpoint"
	"tailbox/cdc/relay"
	"tailbox/schema"
)

// View is what the console reads. Each function answers at once.
type View struct {
	Name    string // of the relay
	Relay   func() relay.Status
	Members func() []checkpoint.Member
	Read    func() binlog.ReadPlace
	Source  func() binlog.Survey
	Repair  func() (binlog.Repair, bool)
	Deleted func() uint64 // outbox rows, by retention
	// RoutingKey makes the routing key of an event.
	RoutingKey func(*schema.Event) string
	Now        func() time.Time
}

// Position is the document of GET /position. Times are RFC 3339 in UTC with microseconds, empty when there is none yet.
type Position struct {
	Relay  string       `json:"relay"`
	State  relay.State  `json:"state"`
	Reason relay.Reason `json:"reason"`
	Detail string       `json:"detail,omitempty"` // why it halted, and what mends it

	Leader struct {
		ID        string `json:"id"` // empty while nobody leads
		Epoch     uint64 `json:"epoch"`
		Me        bool   `json:"me"`
		ExpiresAt string `json:"expires_at"` // unless the lease is renewed
		Takeovers uint64 `json:"takeovers"`  // how often this instance became the leader
	} `json:"leader"`
	Members []Member `json:"members"` // all instances that live
	Source  struct {
		Flavor     string `json:"flavor"`
		Version    string `json:"version"`
		ServerUUID string `json:"server_uuid"`
		GTIDMode   bool   `json:"gtid_mode"`
		File       string `json:"file"` // end of the server's binlog
		Pos        uint64 `json:"pos"`
		GTIDSet    string `json:"gtid_set"`
		AskedAt    string `json:"asked_at"`
	} `json:"source"`
	Read struct {
		Place
		CommittedAt string `json:"committed_at"`
	} `json:"read"`
	Confirmed struct {
		Place
		CommittedAt string `json:"committed_at"`
		EventID     string `json:"event_id"`
	} `json:"confirmed"`
	Checkpoint struct {
		Place
		EventID  string `json:"event_id"`
		SkipRows uint64 `json:"skip_rows"`
		SavedAt  string `json:"saved_at"`
	} `json:"checkpoint"`
	Lag struct {
		Seconds  float64 `json:"seconds"`   // age of the oldest commit that is not confirmed
		Bytes    uint64  `json:"bytes"`     // of binlog between what is confirmed and the server's end
		InFlight int     `json:"in_flight"` // events read and not confirmed without a gap
	} `json:"lag"`
	Waiting *Waiting `json:"waiting,omitempty"` // the oldest event that is not confirmed, while the relay is blocked
	Runway  struct {
		File  string `json:"file"`               // the oldest that the server still has
		Bytes uint64 `json:"bytes_behind_purge"` // from the beginning of that to the checkpoint
		// until the checkpoint's file may be purged for its age; missing when the server does not do so, or not yet
		Seconds *float64 `json:"seconds_until_purge,omitempty"`
		known   bool
	} `json:"runway"`
	Totals Totals `json:"totals"`
	// Repair is the last gap in the binlog that this process filled from the outbox table.
	Repair *Repair `json:"repair,omitempty"`
}

// Repair tells exactly what a repair did.
type Repair struct {
	Reason  relay.Reason `json:"reason"`
	Detail  string       `json:"detail"`
	From    Place        `json:"from"`  // the binlog did not lead on from here
	To      Place        `json:"to"`    // the stream goes on from here
	Since   string       `json:"since"` // rows created from then on were sent; empty: all
	Rows    uint64       `json:"rows"`  // how many
	BeganAt string       `json:"began_at"`
	At      string       `json:"at"` // when the last row was read; empty while it is under way
}

// RepairOf is the document of a repair.
func RepairOf(r binlog.Repair) *Repair {
	return &Repair{Reason: r.Reason, Detail: r.Detail, From: place(r.From), To: place(r.To), Since: stamp(r.Since), Rows: r.Rows,
		BeganAt: stamp(r.Began), At: stamp(r.Ended)}
}

// Member is one instance of the relay, as it said of itself last.
type Member struct {
	ID       string `json:"id"`
	ServerID uint32 `json:"server_id"`
	State    string `json:"state"`
	SeenAt   string `json:"seen_at"`
}

// Waiting is an event that holds up those behind it, or waits with them.
type Waiting struct {
	EventID       string `json:"event_id"`
	Type          string `json:"type"`
	AggregateType string `json:"aggregate_type"`
	RoutingKey    string `json:"routing_key"`
	Position      string `json:"position"`
	CommittedAt   string `json:"committed_at"`
}

// Place is a place in the binlog.
type Place struct {
	File    string `json:"file"`
	Pos     uint64 `json:"pos"`
	GTIDSet string `json:"gtid_set"`
}

// Totals are counts since the process started.
type Totals struct {
	Read        uint64 `json:"read"`
	Published   uint64 `json:"published"`
	Confirmed   uint64 `json:"confirmed"`
	Returned    uint64 `json:"returned"`
	Parked      uint64 `json:"parked"`
	Nacked      uint64 `json:"nacked"`
	Quarantined uint64 `json:"quarantined"`
	Repaired    uint64 `json:"repaired"` // confirmed, of the rows that a repair sent
	Deleted     uint64 `json:"deleted"`  // outbox rows, by retention
	Reconnects  uint64 `json:"reconnects"`
}

// Position puts the document together.
func (v View) Position() Position {
	status, read, source := v.Relay(), v.Read(), v.Source()
	p := Position{Relay: v.Name, State: status.State, Reason: status.Reason, Detail: status.Detail}

	p.Leader.ID, p.Leader.Epoch, p.Leader.Me = status.Leader, status.Epoch, status.Me
	p.Leader.ExpiresAt, p.Leader.Takeovers = stamp(status.ExpiresAt), status.Takeovers
	p.Members = []Member{}
	for _, m := range v.Members() {
		p.Members = append(p.Members, Member{ID: m.Name, ServerID: m.ServerID, State: m.State, SeenAt: stamp(m.SeenAt)})
	}
	p.Source.Flavor, p.Source.Version, p.Source.ServerUUID = source.Flavor, source.Version, source.UUID
	p.Source.GTIDMode, p.Source.GTIDSet, p.Source.AskedAt = source.GTID, source.GTIDSet, stamp(source.At)
	p.Source.File, p.Source.Pos = source.End()
	p.Read.Place, p.Read.CommittedAt = place(read.Position), stamp(read.CommittedAt)
	p.Confirmed.Place, p.Confirmed.CommittedAt, p.Confirmed.EventID = place(status.ConfirmedAt), stamp(status.ConfirmedAt.CommittedAt), status.EventID
	p.Checkpoint.Place, p.Checkpoint.EventID = place(status.Saved), status.SavedEventID
	p.Checkpoint.SkipRows, p.Checkpoint.SavedAt = status.Saved.SkipRows, stamp(status.SavedAt)

	p.Lag.Bytes = source.Runway(status.ConfirmedAt).ToEnd
	p.Lag.Seconds = v.lag(status, read, p.Lag.Bytes)
	p.Lag.InFlight = status.InFlight
	if w := status.Waiting; status.State == relay.Stalled && status.InFlight > 0 {
		p.Waiting = &Waiting{EventID: w.Event.ID, Type: w.Event.Type, AggregateType: w.Event.AggregateType,
			RoutingKey: v.RoutingKey(&w.Event), Position: w.Position, CommittedAt: stamp(w.CommittedAt)}
	}
	runway := source.Runway(status.Saved)
	p.Runway.File, p.Runway.Bytes, p.Runway.known = source.Oldest(), runway.ToPurge, runway.Known
	if !runway.Expires.IsZero() {
		seconds := max(0, runway.Expires.Sub(v.Now()).Seconds())
		p.Runway.Seconds = &seconds
	}

	if repair, some := v.Repair(); some {
		p.Repair = RepairOf(repair)
	}
	t := status.Totals
	p.Totals = Totals{Read: t.Read, Published: t.Published, Confirmed: t.Confirmed, Returned: t.Returned, Parked: t.Parked,
		Nacked: t.Refused, Quarantined: t.Quarantined, Repaired: t.Repaired, Deleted: v.Deleted(), Reconnects: t.SourceReconnects + t.BrokerReconnects}
	return p
}

// lag is the age of the oldest commit that is not confirmed; with nothing unconfirmed, the age of the last commit that
// was read as long as the server has more.
func (v View) lag(status relay.Status, read binlog.ReadPlace, bytes uint64) float64 {
	oldest := status.Oldest
	if oldest.IsZero() && bytes > 0 {
		oldest = read.CommittedAt
	}
	if oldest.IsZero() {
		return 0
	}
	return max(0, v.Now().Sub(oldest).Seconds())
}

// State is what the relay does, in a word.
func (v View) State() string { return string(v.Relay().State) }

// Ready says why the relay is not doing its job; none means that it is. A standby that can see the lease does its job, and so
// does a relay that was told to pause.
func (v View) Ready() []string {
	status := v.Relay()
	switch {
	case status.Reason != "":
		return []string{string(status.State) + ": " + string(status.Reason)}
	case status.State == relay.Starting, status.State == relay.Draining:
		return []string{string(status.State)}
	}
	return nil
}

func place(p relay.Position) Place { return Place{File: p.File, Pos: p.Pos, GTIDSet: p.GTIDSet} }

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(schema.TimeFormat)
}
