package binlog

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"

	"tailbox/cdc/relay"
)

// checkDump asks for the binlog as a replica does: there is no other way to find out whether the user may have it.
func (r *Reader) checkDump(ctx context.Context, s *server) relay.Check {
	check := relay.Check{Name: "dump", Level: relay.CheckOK, Found: "the user may read the binlog as a replica"}
	files, err := binlogFiles(ctx, s.q)
	if err == nil && len(files) == 0 {
		err = errors.New("the server lists no binlog files")
	}
	if err == nil {
		err = r.probe(ctx, s, func(syncer *replication.BinlogSyncer) (*replication.BinlogStreamer, error) {
			return syncer.StartSync(mysql.Position{Name: files[len(files)-1].Name, Pos: 4})
		}, anyEvent)
	}
	refused, byServer := errors.AsType[*mysql.MyError](err)
	switch {
	case err == nil:
	case byServer && (refused.Code == mysql.ER_ACCESS_DENIED_ERROR || refused.Code == mysql.ER_SPECIFIC_ACCESS_DENIED_ERROR):
		check.Level, check.Reason = relay.CheckFail, relay.NotRowLogged
		check.Found, check.Mend = "the user may not read the binlog as a replica ("+refused.Message+")", grantReplication(r.cfg)
	default:
		check.Level, check.Found = relay.CheckFail, "the binlog cannot be read as a replica does ("+cut(err).Error()+")"
	}
	return check
}

// CheckPlace looks whether the server can serve what is behind a place, the zero place being none, and for how long.
func (r *Reader) CheckPlace(ctx context.Context, from relay.Position) []relay.Check {
	check := relay.Check{Name: "checkpoint", Level: relay.CheckOK}
	if from.IsZero() {
		check.Found = fmt.Sprintf("there is none yet: START=%s chooses the place to begin at", r.cfg.Start)
		return []relay.Check{check}
	}
	if from.Snapshot {
		check.Found = "a snapshot was asked for"
		return []relay.Check{check}
	}
	survey, err := r.tryPlace(ctx, from)
	if halt := (*relay.Halt)(nil); errors.As(err, &halt) {
		check.Level, check.Found, check.Reason = relay.CheckFail, halt.Err.Error(), halt.Reason
		if r.repairable(halt) {
			check.Level, check.Reason, check.Mend = relay.CheckWarn, "", "start the relay: ON_GAP=repair does it"
		}
		return []relay.Check{check}
	}
	if err != nil {
		check.Level, check.Found = relay.CheckFail, "cannot be compared with the server ("+err.Error()+")"
		return []relay.Check{check}
	}
	check.Found = "the server has what is behind it"
	return []relay.Check{check, checkRunway(survey.Runway(from))}
}

// leastRunway is how long before its purge a checkpoint is worth a warning.
const leastRunway = 6 * time.Hour

func checkRunway(runway Runway) relay.Check {
	check := relay.Check{Name: "runway", Level: relay.CheckOK}
	if !runway.Known {
		check.Found = "is not known: the checkpoint's file is another server's"
		return check
	}
	check.Found = fmt.Sprintf("there are %d bytes of binlog before the checkpoint, and %d behind it", runway.ToPurge, runway.ToEnd)
	if runway.Expires.IsZero() {
		return check
	}
	check.Found += ", which the server may purge from " + runway.Expires.UTC().Format(time.RFC3339) + " on"
	if time.Until(runway.Expires) < leastRunway {
		check.Level, check.Mend = relay.CheckWarn, "let the relay run, or raise binlog_expire_logs_seconds until it has caught up"
	}
	return check
}

// tryPlace does what a stream does before its first row.
func (r *Reader) tryPlace(ctx context.Context, from relay.Position) (survey Survey, err error) {
	server, err := r.inspect(ctx, r.cfg.DB)
	if err != nil {
		return survey, err
	}
	survey = Survey{At: time.Now(), UUID: server.uuid, Expiry: server.expiry()}
	if survey.Files, err = binlogFiles(ctx, server.q); err != nil {
		return survey, err
	}
	ledger := newLedger()
	ledger.begin(from)
	if from, err = ledger.resume(server); err != nil {
		return survey, err
	}
	if err := r.validate(ctx, server, from, 0); err != nil {
		return survey, err
	}
	err = r.probe(ctx, server, func(syncer *replication.BinlogSyncer) (*replication.BinlogStreamer, error) {
		return startSync(syncer, server, from)
	}, anyEvent)
	if err != nil {
		return survey, classify(err)
	}
	return survey, nil
}

// probe starts a dump under a number of its own, and ends it at the first event that is wanted.
func (r *Reader) probe(ctx context.Context, s *server, start func(*replication.BinlogSyncer) (*replication.BinlogStreamer, error),
	wanted func(*replication.BinlogEvent) bool) error {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.ReadTimeout)
	defer cancel()
	link := newLink(r.cfg)
	cfg, err := r.replica(s, link)
	if err != nil {
		return err
	}
	wait := &waiter{wanted: wanted, came: make(chan struct{})}
	cfg.ServerID, cfg.SynchronousEventHandler = randomServerID(), wait
	syncer := replication.NewBinlogSyncer(cfg)
	defer shut(syncer, link)
	defer context.AfterFunc(ctx, link.close)()

	stream, err := started(func() (*replication.BinlogStreamer, error) { return start(syncer) })
	if err != nil {
		return err
	}
	_, err = stream.GetEvent(ctx) // events go to the waiter, which ends the stream
	select {
	case <-wait.came:
		return nil
	default:
		return err
	}
}

// waiter notes that a wanted event came, and ends the stream.
type waiter struct {
	wanted func(*replication.BinlogEvent) bool
	came   chan struct{}
}

// HandleEvent implements replication.EventHandler.
func (w *waiter) HandleEvent(e *replication.BinlogEvent) error {
	if !w.wanted(e) {
		return nil
	}
	close(w.came)
	return errStopped // there is no second one
}

func anyEvent(*replication.BinlogEvent) bool { return true }

// started starts a dump. A malformed answer makes go-mysql panic in this goroutine.
func started(start func() (*replication.BinlogStreamer, error)) (stream *replication.BinlogStreamer, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("start the dump: the server's answer is malformed")
		}
	}()
	return start()
}
