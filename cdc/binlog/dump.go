package binlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-mysql-org/go-mysql/client"
	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"

	"tailbox/cdc/relay"
)

// A link is taken for dead when it was silent for readTimeout; an idle server speaks every heartbeat.
const (
	heartbeat   = 5 * time.Second
	readTimeout = 15 * time.Second
	dialTimeout = 10 * time.Second
)

// dump streams from a place until ctx ends, deliver returns an error or the link breaks.
func (r *Reader) dump(ctx context.Context, s *server, from relay.Position, deliver func(relay.Row) error) error {
	h := newHandler(ctx, r, s, from, deliver)
	defer r.hears.Store(false)
	return r.listen(ctx, s, from, h, h, func(err error) error {
		switch {
		case h.refused != nil:
			return h.refused
		case errors.Is(err, errAgain):
			return errAgain
		}
		return r.judge(h, err)
	})
}

// listen has the events of a stream from a place handed to events, of which h decodes the rows, until ctx ends, it returns an
// error or the link breaks. judge says what the end of the stream means. go-mysql's own reconnect is off: it may resume inside a
// transaction, or skip one.
func (r *Reader) listen(ctx context.Context, s *server, from relay.Position, h *handler, events replication.EventHandler, judge func(error) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	links := newDialer()
	h.ctx = ctx
	syncer, err := r.syncer(s, links, h, events)
	if err != nil {
		return err
	}
	defer shut(syncer, links)
	defer context.AfterFunc(ctx, links.close)() // ends the handshake, too, which knows no context

	stream, err := startSync(syncer, s, from)
	if err != nil {
		return classify(err)
	}
	// Events go to the handler; here only the end of the stream arrives.
	_, err = stream.GetEvent(ctx)
	if ctx.Err() != nil {
		return errStopped // the handler may still be at work: what it says is not looked at
	}
	return judge(err)
}

func (r *Reader) syncer(s *server, links *dialer, h *handler, events replication.EventHandler) (*replication.BinlogSyncer, error) {
	cfg, err := r.replica(s, links)
	if err != nil {
		return nil, err
	}
	cfg.RowsEventDecodeFunc, cfg.SynchronousEventHandler = h.decodeRows, events
	return replication.NewBinlogSyncer(cfg), nil
}

// replica is how this process presents itself to the server.
func (r *Reader) replica(s *server, links *dialer) (cfg replication.BinlogSyncerConfig, err error) {
	server := r.cfg.Server
	host, port, err := address(server.Net, server.Addr)
	if err != nil {
		return cfg, err
	}
	cfg = replication.BinlogSyncerConfig{
		ServerID:         r.serverID,
		Flavor:           s.flavor,
		Host:             host,
		Port:             port,
		Localhost:        r.cfg.Name,
		User:             server.User,
		Password:         server.Passwd,
		TLSConfig:        server.TLS,
		Dialer:           links.DialContext,
		Logger:           slog.New(slog.DiscardHandler), // its errors come back to us; its texts may carry rows
		HeartbeatPeriod:  r.pulse,
		ReadTimeout:      readTimeout,
		DisableRetrySync: true,
		VerifyChecksum:   true,
		ParseTime:        true,
		DiscardGTIDSet:   true,
		// A payload column of MySQL's JSON type is rendered as the server itself would.
		RenderJSONAsMySQLText:     true,
		PayloadDecoderConcurrency: 1,
		// The server gives up on a reader that is held back for longer than this.
		Option: func(c *client.Conn) error {
			_, err := c.Execute("SET SESSION net_write_timeout = 600")
			return err
		},
	}
	if server.AllowFallbackToPlaintext {
		cfg.TLSConfig = nil
	}
	return cfg, nil
}

// startSync asks for the dump.
func startSync(syncer *replication.BinlogSyncer, s *server, from relay.Position) (*replication.BinlogStreamer, error) {
	if !s.gtid {
		return started(func() (*replication.BinlogStreamer, error) {
			return syncer.StartSync(mysql.Position{Name: from.File, Pos: uint32(from.Pos)})
		})
	}
	set, err := parseGTIDSet(s.flavor, from.GTIDSet)
	if err != nil {
		return nil, relay.Haltf(relay.CheckpointBad, "the checkpoint's GTID set cannot be read: %w", err)
	}
	// The syncer keeps and changes the set: it is ours alone.
	return started(func() (*replication.BinlogStreamer, error) { return syncer.StartSyncGTID(set.set) })
}

// shut ends the syncer. Its Close would dial the server again to kill the dump thread; with its links cut it returns at
// once, and the server ends the thread when it next writes.
func shut(syncer *replication.BinlogSyncer, links *dialer) {
	links.close()
	syncer.Close()
}

// dialer remembers the connections that it made, so that they can be cut.
type dialer struct {
	net.Dialer
	mu     sync.Mutex
	conns  []net.Conn
	closed bool
}

func newDialer() *dialer {
	return &dialer{Dialer: net.Dialer{Timeout: dialTimeout, KeepAlive: readTimeout, Control: smallSegments}}
}

// DialContext is a client.Dialer.
func (d *dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	d.mu.Lock()
	closed := d.closed
	d.mu.Unlock()
	if closed {
		return nil, net.ErrClosed
	}
	conn, err := d.Dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		_ = conn.Close() // nobody will use it
		return nil, net.ErrClosed
	}
	d.conns = append(d.conns, conn)
	return conn, nil
}

func (d *dialer) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	for _, conn := range d.conns {
		_ = conn.Close() // cutting it is the point
	}
}

func address(network, addr string) (host string, port uint16, err error) {
	if network == "unix" {
		return addr, 0, nil
	}
	host, service, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, fmt.Errorf("read the address in MYSQL_DSN: %w", err)
	}
	number, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("read the port in MYSQL_DSN: %w", err)
	}
	return host, uint16(number), nil
}

// classify turns what a server says about a place it cannot serve into a halt, and cuts long texts, which may carry rows.
func classify(err error) error {
	if halt := (*relay.Halt)(nil); errors.As(err, &halt) {
		return halt
	}
	refused, ok := errors.AsType[*mysql.MyError](err)
	if !ok {
		return cut(err)
	}
	text := strings.ToLower(refused.Message)
	says := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(text, w) {
				return true
			}
		}
		return false
	}
	const fatalRead = 1236
	switch {
	case refused.Code != fatalRead && refused.Code != 1945 && refused.Code != 1947 && refused.Code != 1955:
		return cut(err)
	case says("purged", "could not find first log", "could not find gtid state", "not find requested gtid"):
		return relay.Haltf(relay.BinlogPurged, "the server no longer has what follows the checkpoint (%s): %s", refused.Message, startAnew)
	case says("cannot replicate anonymous transaction"):
		return relay.Haltf(relay.SourceChanged, "the binlog has transactions without GTIDs behind the checkpoint (%s): gtid_mode was not ON all the time; "+
			"let the relay pass them with gtid_mode=ON_PERMISSIVE, or %s", refused.Message, startAnew)
	case says("more gtids", "not in the master's binlog", "not in the primary's binlog", "has not been found in the binlog"):
		return relay.Haltf(relay.SourceBehind, "the server has not seen what the checkpoint has (%s)", refused.Message)
	case says("greater than file size", "> file size", "impossible position"):
		return relay.Haltf(relay.HistoryReset, "the checkpoint lies outside of the server's binlog (%s)", refused.Message)
	}
	return cut(err)
}

// cut keeps the first words of an error alone: go-mysql's name the event, what follows can be its bytes or a stack.
func cut(err error) error {
	const most = 200
	text, at := err.Error(), ""
	if event, ok := errors.AsType[*replication.EventError](err); ok {
		text, at = event.Err, fmt.Sprintf("%s that ends at %d: ", event.Header.EventType, event.Header.LogPos)
	}
	if len(text) > most {
		text = text[:most] + "..."
	}
	return errors.New("read the binlog: " + at + text)
}
