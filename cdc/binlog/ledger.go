package binlog

import (
	"sync"
	"time"

	"tailbox/cdc/relay"
)

// ledger translates between the relay's row numbers and places in the binlog. It remembers, for the rows that are not yet
// confirmed, where each transaction ended; transactions without outbox rows are folded into the entry before them, so it
// never holds more entries than the relay's window has rows.
//
// Invariant: base ≤ every end ≤ read, in binlog order; base is behind row base.seq, and only moves to the end of a whole
// transaction. A transaction enters a GTID set only when its end was read.
type ledger struct {
	mu   sync.Mutex
	term uint64 // grows whenever a place is begun at that has nothing to do with those before
	state
}

type state struct {
	known   bool   // base is a place (false until START or a repair has found one)
	server  string // uuid and flavour that the places belong to
	flavor  string
	gtid    bool
	file    file      // that is being read
	base    place     // behind the last transaction that is confirmed
	ends    []end     // of the transactions behind it
	read    place     // behind the last transaction that was read whole
	foreign spot      // behind the last one of those that was not the relay's own
	unsent  time.Time // rows created before were passed over by START=latest
	readAt  time.Time
	late    time.Duration // the longest time from the creation of a row to its commit, of those delivered and before
	rows    uint64        // Seq of the last row delivered
	first   uint64        // Seq of the last row before the base was settled: no place exists before it is confirmed
	settled uint64        // transactions passed when it was
	open    string        // GTID of the transaction that is being read, or was when the stream broke
	start   *relay.Position

	snapshot bool // the place to begin at is to be found by a snapshot, whatever START says
}

// place is between two transactions.
type place struct {
	spot
	set  gtidSet
	seq  uint64 // of the last row before it
	skip uint64 // rows of the transaction behind it that are not counted in seq, being confirmed by an earlier process
}

// spot is what is known of the end of a transaction besides its GTID.
type spot struct {
	file
	pos    uint64
	passed uint64    // transactions of others before it
	at     time.Time // when the last transaction before it was committed
}

// file is one file of the server's binlog. A name comes again after a reset, with another time.
type file struct {
	name string
	made time.Time // when the server began it, as its first event says; zero when that was not read
}

// end is where one transaction with outbox rows, and those without that follow it, ended.
type end struct {
	spot
	last  uint64 // Seq of its last row
	name  string // GTID of the transaction with the rows
	gtids []gtid // of all of them
}

func newLedger() *ledger { return &ledger{} }

// begin forgets all and starts at a position; at the zero position, and for a snapshot, it waits for settle.
func (l *ledger) begin(from relay.Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state = state{snapshot: from.Snapshot, late: from.Late}
	l.term++
	if !from.IsZero() && !from.Snapshot {
		l.start = &from
	}
}

// wantsSnapshot tells whether it was begun with one.
func (l *ledger) wantsSnapshot() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.snapshot
}

// placed tells whether there is a place to stream from.
func (l *ledger) placed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.known || l.start != nil
}

// leave gives up the place, which leads nowhere any more, until another one is settled; rows stay numbered. It gives that
// place, behind the last row delivered, and tells whether a transaction was read since it was settled.
func (l *ledger) leave() (from relay.Position, moved bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known {
		from, moved = l.position(l.read, l.rows, l.open), l.read.passed > l.settled
	} else {
		from = *l.start
	}
	l.known, l.start, l.ends, l.open = false, nil, nil, ""
	l.term++
	return from, moved
}

// settle makes a place that START or a repair has found the base, behind all rows that were delivered so far.
func (l *ledger) settle(from relay.Position) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	passed := l.base.passed + 1 // worth saving at once: a restart without it would choose another place
	if err := l.place(from); err != nil {
		return err
	}
	l.first = l.rows
	l.base.passed, l.read.passed, l.settled = passed, passed, passed
	return nil
}

func (l *ledger) place(from relay.Position) error {
	l.base = place{spot: spot{file: file{from.File, from.FileMade}, pos: from.Pos, at: from.CommittedAt}, seq: l.rows, skip: from.SkipRows}
	if from.GTID {
		set, err := parseGTIDSet(from.Flavor, from.GTIDSet)
		if err != nil {
			return relay.Haltf(relay.CheckpointBad, "the checkpoint's GTID set cannot be read: %w", err)
		}
		l.base.set = set
	}
	l.server, l.flavor, l.gtid = from.ServerUUID, from.Flavor, from.GTID
	l.late = max(l.late, from.Late)
	l.read, l.foreign, l.ends, l.known = l.base.copy(), l.base.spot, nil, true
	if from.Unsent.After(l.unsent) {
		l.unsent = from.Unsent
	}
	return nil
}

func (p place) copy() place {
	p.set = p.set.clone()
	return p
}

// resume gives the place to stream from, behind the last row that was delivered, with the uuid of the server that it comes
// from, which may be another one than that.
func (l *ledger) resume(server *server) (relay.Position, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.known {
		if err := l.place(*l.start); err != nil {
			return relay.Position{}, err
		}
		l.open = l.start.SkipGTID
	}
	if l.flavor == server.flavor && l.gtid != server.gtid && l.server == server.uuid {
		return relay.Position{}, relay.Haltf(relay.HistoryReset, "gtid_mode was changed since the checkpoint, which was made with GTIDs %t: %s", l.gtid, startAnew)
	}
	if l.flavor != server.flavor || l.gtid != server.gtid {
		return relay.Position{}, relay.Haltf(relay.SourceChanged, "the checkpoint was made on %s with GTIDs %t, the server is %s with GTIDs %t: "+
			"point MYSQL_DSN at the right server, or %s",
			l.flavor, l.gtid, server.flavor, server.gtid, startAnew)
	}
	before := l.server
	if l.gtid && l.server != server.uuid {
		l.moved(server.uuid)
	}
	from := l.position(l.read, l.rows, l.open)
	from.ServerUUID = before
	return from, nil
}

// moved notes that the next stream is another server's. A set of GTIDs means the same to every server that has them; files
// and offsets mean nothing to it, so they are unknown until a transaction ends in its own.
func (l *ledger) moved(server string) {
	l.server = server
	for _, s := range l.spots() {
		s.file, s.pos = file{}, 0
	}
}

func (l *ledger) spots() []*spot {
	spots := []*spot{&l.base.spot, &l.read.spot, &l.foreign}
	for i := range l.ends {
		spots = append(spots, &l.ends[i].spot)
	}
	return spots
}

// opened notes when the server began the file that is being read, as its first event says. It is false when the place was in
// another file of that name: the binlog was begun anew.
func (l *ledger) opened(name string, made time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.file = file{name, made}
	if l.read.name == name && !l.read.made.IsZero() && !l.read.made.Equal(made) {
		return false
	}
	for _, s := range l.spots() {
		if s.name == name {
			s.made = made
		}
	}
	return true
}

// position is the place behind row seq, where p is the last whole transaction's end at or before it and next the GTID of
// the transaction behind p.
func (l *ledger) position(p place, seq uint64, next string) relay.Position {
	at := relay.Position{Flavor: l.flavor, ServerUUID: l.server, GTID: l.gtid, GTIDSet: p.set.String(), File: p.name, FileMade: p.made, Pos: p.pos,
		CommittedAt: p.at, Late: l.late, Unsent: l.unsent}
	if skip := seq - p.seq + p.skip; skip > 0 {
		at.SkipRows, at.SkipGTID = skip, next
	}
	return at
}

// transaction notes that one begins. Where rows of another one are behind the place already, and that one does not come
// next (a server after a failover may have another order), they belong to that one alone: the place stays before it, and
// what was counted of it is not counted for this one. It is sent again as a whole when it comes.
func (l *ledger) transaction(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	partly := l.rows > l.read.seq || l.read.skip > 0
	if partly && l.open != "" && l.open != name {
		if l.rows > l.lastEnd() {
			l.ends = append(l.ends, end{spot: l.read.spot, last: l.rows, name: l.open})
		} else if len(l.ends) == 0 {
			l.base.skip = 0
		}
		l.read.seq, l.read.skip = l.rows, 0
	}
	l.open = name
}

// row numbers the next row, which was created that long before its commit.
func (l *ledger) row(late time.Duration) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rows++
	l.late = max(l.late, late.Truncate(time.Microsecond))
	return l.rows
}

// ended notes that a whole transaction was read, committed at that time if it is known, up to pos in a file. foreign says
// that it is not the relay's own.
func (l *ledger) ended(g gtid, in string, pos uint64, at time.Time, foreign bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	one := join(nil, g)
	l.read.set.add(one)
	if l.file.name != in {
		l.file = file{name: in}
	}
	l.read.file, l.read.pos, l.read.seq, l.read.skip = l.file, pos, l.rows, 0
	if foreign {
		l.read.passed++
	}
	if !at.IsZero() {
		l.readAt, l.read.at = at, at
	}
	if foreign {
		l.foreign = l.read.spot
	}
	l.open = ""

	switch {
	case l.rows > l.lastEnd():
		l.ends = append(l.ends, end{spot: l.read.spot, last: l.rows, name: g.String(), gtids: one})
	case len(l.ends) > 0:
		e := &l.ends[len(l.ends)-1]
		e.gtids, e.spot = join(e.gtids, g), l.read.spot
	default:
		l.base.set.add(one)
		l.base.skip, l.base.spot = 0, l.read.spot
	}
}

func (l *ledger) lastEnd() uint64 {
	if len(l.ends) == 0 {
		return l.base.seq
	}
	return l.ends[len(l.ends)-1].last
}

// rotated notes that the binlog goes on in another file.
func (l *ledger) rotated(next string) { l.ended(gtid{}, next, 4, time.Time{}, true) }

// confirmed moves base up to row seq and gives the place right behind that row.
func (l *ledger) confirmed(seq uint64) (relay.Position, uint64, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.known || seq < l.first {
		return relay.Position{}, 0, false
	}
	for len(l.ends) > 0 && l.ends[0].last <= seq {
		e := l.ends[0]
		l.base.set.add(e.gtids)
		l.base.spot, l.base.seq, l.base.skip = e.spot, e.last, 0
		l.ends = l.ends[1:]
	}
	if seq < l.base.seq {
		seq = l.base.seq // somebody else asked for more since: that much is confirmed
	}
	next := l.open
	if len(l.ends) > 0 {
		next = l.ends[0].name
	}
	return l.position(l.base, seq, next), l.base.passed, true
}

// ReadPlace is how far a stream has been read.
type ReadPlace struct {
	Position    relay.Position
	CommittedAt time.Time // of the last transaction that was read whole; zero before the first
	Rows        uint64
	Notes       Notes
}

func (l *ledger) readPlace() ReadPlace {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.known {
		return ReadPlace{Rows: l.rows}
	}
	return ReadPlace{Position: l.position(l.read, l.rows, l.open), CommittedAt: l.readAt, Rows: l.rows}
}
