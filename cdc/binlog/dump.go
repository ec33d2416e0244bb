package binlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/go-mysql-org/go-mysql/client"
	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"

	"tailbox/cdc/relay"
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
	link := newLink(r.cfg)
	h.ctx, h.found = ctx, link.stream
	syncer, err := r.syncer(s, link, h, events)
	if err != nil {
		return err
	}
	defer shut(syncer, link)
	defer context.AfterFunc(ctx, link.close)() // ends the handshake, too, which knows no context

	stream, err := startSync(syncer, s, from)
	r.thread = thread{server: s.uuid, id: syncer.LastConnectionID(), began: time.Now()}
	if err == nil {
		link.search()
		_, err = stream.GetEvent(ctx) // events go to the handler; here only the end of the stream arrives
	}
	switch {
	case ctx.Err() != nil:
		return errStopped // the handler may still be at work: what it says is not looked at
	case link.err() != nil:
		return link.err()
	}
	return judge(err)
}

func (r *Reader) syncer(s *server, link *link, h *handler, events replication.EventHandler) (*replication.BinlogSyncer, error) {
	cfg, err := r.replica(s, link)
	if err != nil {
		return nil, err
	}
	cfg.RawModeEnabled, cfg.SynchronousEventHandler = true, newUnpacker(s.flavor, h, events)
	return replication.NewBinlogSyncer(cfg), nil
}

// replica is how this process presents itself to the server.
func (r *Reader) replica(s *server, link *link) (cfg replication.BinlogSyncerConfig, err error) {
	server := r.cfg.Server
	host, port, err := address(server.Net, server.Addr)
	if err != nil {
		return cfg, err
	}
	cfg = replication.BinlogSyncerConfig{
		ServerID:         r.ServerID(),
		Flavor:           s.flavor,
		Host:             host,
		Port:             port,
		Localhost:        r.cfg.Name,
		User:             server.User,
		Password:         server.Passwd,
		TLSConfig:        server.TLS,
		Dialer:           link.dial,
		Logger:           slog.New(slog.DiscardHandler), // its errors come back to us; its texts may carry rows
		HeartbeatPeriod:  r.cfg.Heartbeat,
		DisableRetrySync: true,
		VerifyChecksum:   true,
		DiscardGTIDSet:   true,
		// The server gives up on a reader that is held back for longer than this.
		Option: func(c *client.Conn) error {
			if _, err := c.Execute("SET SESSION net_write_timeout = 600"); err != nil {
				return err
			}
			return s.sameAs(c)
		},
	}
	if server.AllowFallbackToPlaintext && !s.encrypted { // tls=preferred, and the server has none
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
func shut(syncer *replication.BinlogSyncer, link *link) {
	link.close()
	syncer.Close()
}

// sameServerID is in what a server says to the older one of two replicas with one number.
const sameServerID = "with the same server_uuid/server_id"

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
	case says(sameServerID):
		return errors.New("the server ended the stream because another replica has connected under the same server id: give each instance a SERVER_ID of its own, or 0")
	case says("purged", "could not find first log", "could not find gtid state", "not find requested gtid"):
		return relay.Haltf(relay.BinlogPurged, "the server no longer has what follows the checkpoint (%s): %s", refused.Message, startAnew)
	case says("cannot replicate anonymous transaction"):
		return relay.Haltf(relay.HistoryReset, "the binlog has transactions without GTIDs behind the checkpoint (%s): gtid_mode was not ON all the time; "+
			"%s", refused.Message, startAnew)
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
