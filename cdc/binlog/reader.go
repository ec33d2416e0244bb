// Package binlog reads committed outbox rows from the row binlog of a MySQL or MariaDB server, as a replica does. It is
// the only room that knows go-mysql, and owns the connection to the server's dump thread and the translation between the
// relay's row numbers and places in the binlog.
//
// What it promises: every committed insert into the outbox table behind the place it began at is delivered, in commit
// order, again after a reconnect only from behind the last row delivered; a place never lies inside a transaction unless
// it counts the rows to skip; what cannot be read safely ends in a *relay.Halt and is never passed over.
//
// The rows of a transaction are delivered when its end was read and is a commit: servers also write some transactions
// that were rolled back (see transaction). One too large to be held is read twice, first for its end, then for its rows, so
// none is ever in memory as a whole.
package binlog

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-sql-driver/mysql"
	"go.uber.org/zap"

	"tailbox/cdc/outbox"
	"tailbox/cdc/relay"
)

// Start is where a relay without a checkpoint begins.
type Start string

// The values of START.
const (
	StartSnapshot Start = "snapshot" // send what the table holds, then what is committed from now on
	StartLatest   Start = "latest"   // send what is committed from now on
	StartEarliest Start = "earliest" // send all that the server's binlog still has
)

// Table is the name of a table in its database.
type Table struct{ Schema, Name string }

// ParseTable reads OUTBOX_TABLE: a name, or database.name.
func ParseTable(text, database string) (Table, error) {
	schema, name, qualified := strings.Cut(text, ".")
	if !qualified {
		schema, name = database, text
	}
	if schema == "" || name == "" || strings.ContainsAny(schema+name, ".`'\"\\ ") {
		return Table{}, fmt.Errorf("OUTBOX_TABLE: %q is not of the form table or database.table", text)
	}
	return Table{Schema: schema, Name: name}, nil
}

func (t Table) String() string { return t.Schema + "." + t.Name }

// Quoted is the name for use in a statement. ParseTable admits no character that would need more than this.
func (t Table) Quoted() string { return "`" + t.Schema + "`.`" + t.Name + "`" }

// Config of a Reader.
type Config struct {
	// Server is where and as whom to connect, both for the dump and for SQL.
	Server *mysql.Config
	// DB is a pool on the same server, for questions and the snapshot.
	DB *sql.DB
	// Outbox is the table whose inserts are delivered.
	Outbox Table
	// Own are the tables that the relay itself writes all the time: transactions that touch nothing else are no progress.
	Own []Table
	// Start is where to begin without a checkpoint.
	Start Start
	// Name is what the server's list of its replicas shows for this process. It must be no other process's. Defaults to a
	// random one.
	Name string
	// ServerID is the number that this process has among the server's replicas. 0, the default, stands for a random one.
	ServerID uint32
	// Heartbeat is how often the server speaks when it has nothing to send. Defaults to DefaultHeartbeat.
	Heartbeat time.Duration
	// ReadTimeout is how long the server may be silent before the link is taken for dead. Defaults to DefaultReadTimeout.
	ReadTimeout time.Duration
	// SearchTimeout takes its place while the server looks for the place to begin at: by GTID it may read a whole file, and
	// a MariaDB says nothing meanwhile. Defaults to DefaultSearchTimeout.
	SearchTimeout time.Duration
	// Recheck is how often a new connection looks whether the address still leads to the server that is read. Defaults to
	// DefaultRecheck.
	Recheck time.Duration
	// OnGap is what happens when the binlog does not lead on from the checkpoint. Defaults to GapRepair.
	OnGap OnGap
	// Fence commits a transaction of the relay's own on the server. Servers commit in binlog order, so when it returns,
	// all that was in the binlog before it was called can be seen by a SELECT. Needed for StartSnapshot and GapRepair.
	Fence func(ctx context.Context) error
	// Log receives warnings. Defaults to nowhere.
	Log *zap.Logger
	// Repairing, if set, is told of a repair when it begins and when its last row was read. The repair waits for it.
	Repairing func(ctx context.Context, repair Repair)
}

// Defaults of Config. A link that is dead is noticed within 15 seconds.
const (
	DefaultHeartbeat     = 4 * time.Second
	DefaultReadTimeout   = 13 * time.Second
	DefaultSearchTimeout = 2 * time.Minute
	DefaultRecheck       = 5 * time.Second
)

func (c Config) withDefaults() Config {
	if c.Name == "" {
		c.Name = "tailbox-" + rand.Text()
	}
	if c.Log == nil {
		c.Log = zap.NewNop()
	}
	for _, d := range []struct {
		value    *time.Duration
		fallback time.Duration
	}{
		{&c.Heartbeat, DefaultHeartbeat},
		{&c.ReadTimeout, DefaultReadTimeout},
		{&c.SearchTimeout, DefaultSearchTimeout},
		{&c.Recheck, DefaultRecheck},
	} {
		if *d.value <= 0 {
			*d.value = d.fallback
		}
	}
	return c
}

// Reader is a relay.Source. See the package comment for what it promises.
type Reader struct {
	cfg      Config
	serverID atomic.Uint32
	ledger   *ledger
	hears    atomic.Bool // a stream is under way and has heard from the server
	notes    notes
	asked    *mysql.Config // where questions before a stream go: to cfg.Server
	hold     int           // bytes of one transaction's rows that are held until its end
	failed   failure       // how the last streams ended; Stream's own
	thread   thread        // of the last dump; Stream's own
	verdict  *verdict      // on the transaction that the next stream begins with, if it was too large to be held; Stream's own

	mu      sync.Mutex
	mapping *outbox.Mapping // of the column names seen last
	gap     *Repair         // the last one since Begin
	repairs int             // without a transaction between them
}

var _ relay.Source = (*Reader)(nil)

// New returns a reader that is not connected.
func New(cfg Config) *Reader {
	cfg = cfg.withDefaults()
	r := &Reader{cfg: cfg, asked: cfg.Server, ledger: newLedger(), notes: notes{log: cfg.Log}, hold: holdBytes}
	if r.serverID.Store(cfg.ServerID); cfg.ServerID == 0 {
		r.serverID.Store(randomServerID())
	}
	return r
}

// ServerID is as which replica the reader connects.
func (r *Reader) ServerID() uint32 { return r.serverID.Load() }

// randomServerID is in the upper half of the range, away from the small numbers people give to servers.
func randomServerID() uint32 {
	var raw [4]byte
	_, _ = rand.Read(raw[:]) // never fails
	return binary.LittleEndian.Uint32(raw[:]) | 1<<31
}

// Begin implements relay.Source.
func (r *Reader) Begin(from relay.Position) {
	r.mu.Lock()
	r.gap, r.repairs = nil, 0
	r.mu.Unlock()
	r.ledger.begin(from)
}

// Confirmed implements relay.Source.
func (r *Reader) Confirmed(seq uint64) (relay.Position, uint64, bool) { return r.ledger.confirmed(seq) }

// Stream implements relay.Source.
func (r *Reader) Stream(ctx context.Context, deliver func(relay.Row) error) error {
	// The pool's connections may be dead without knowing it, or another server's: these are new.
	db, err := r.questions()
	if err != nil {
		return err
	}
	defer db.Close()
	server, err := r.fit(ctx, db)
	if err != nil {
		return err
	}
	return r.whileHere(ctx, server, func(ctx context.Context) error { return r.stream(ctx, server, deliver) })
}

// fit asks the server whether a stream may begin.
func (r *Reader) fit(ctx context.Context, q queryer) (*server, error) {
	server, err := r.inspect(ctx, q)
	if err != nil {
		return nil, err
	}
	if found := relay.Fatal(server.checks(r.cfg)); len(found) > 0 {
		return nil, found.Halt()
	}
	if err := r.claimServerID(ctx, server); err != nil {
		return nil, err
	}
	return server, r.endThread(ctx, server)
}

// stream finds the place to begin at, if there is none yet, and goes on from there, and from behind each gap.
func (r *Reader) stream(ctx context.Context, server *server, deliver func(relay.Row) error) error {
	for {
		if !r.ledger.placed() {
			if err := r.start(ctx, server, deliver); err != nil {
				return err
			}
		}
		err := r.follow(ctx, server, deliver)
		if !errors.Is(err, errAgain) && !r.leave(err) {
			return err
		}
	}
}

// questions is a pool for what is asked before a stream begins. Nothing is dialled yet.
func (r *Reader) questions() (*sql.DB, error) {
	cfg := r.asked.Clone()
	cfg.Timeout, cfg.ReadTimeout, cfg.WriteTimeout = r.cfg.ReadTimeout, r.cfg.ReadTimeout, r.cfg.ReadTimeout
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, fmt.Errorf("prepare the connection: %w", err)
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(1)
	db.SetConnMaxIdleTime(time.Second) // while it streams there is nothing to ask
	return db, nil
}

// follow streams from the place that the ledger has.
func (r *Reader) follow(ctx context.Context, s *server, deliver func(relay.Row) error) error {
	from, err := r.ledger.resume(s)
	if err != nil {
		return err
	}
	if err := r.validate(ctx, s, from, behindPatience); err != nil {
		return err
	}
	return r.dump(ctx, s, from, deliver)
}

// Connected implements relay.Source.
func (r *Reader) Connected() bool { return r.hears.Load() }

// mappingFor is the mapping for the column names of a table map, made anew when they change.
func (r *Reader) mappingFor(names []string) (*outbox.Mapping, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mapping != nil && r.mapping.Fits(names) {
		return r.mapping, nil
	}
	mapping, err := outbox.NewMapping(names)
	if err != nil {
		return nil, &relay.Halt{Reason: relay.SchemaMismatch, Err: err}
	}
	r.mapping = mapping
	return mapping, nil
}

// Read tells how far the stream has been read.
func (r *Reader) Read() ReadPlace {
	place := r.ledger.readPlace()
	place.Notes = r.notes.soFar()
	return place
}

// errStopped ends a stream whose context has ended.
var errStopped = errors.New("the stream was stopped")
