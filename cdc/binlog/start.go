package binlog

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"strings"
	"time"

	"tailbox/cdc/relay"
)

// startAnew is what mends a gap: there is no way to get from the binlog what it no longer has.
const startAnew = "ON_GAP=repair sends what may be missing from the outbox table; or set position to NULL in the relay's row of " +
	"relay_checkpoint to start anew with START=snapshot, which sends all that it holds"

// start finds the place to begin at when there is no checkpoint, or none that leads on.
func (r *Reader) start(ctx context.Context, s *server, deliver func(relay.Row) error) error {
	var from relay.Position
	var err error
	switch _, gap := r.Repair(); {
	case gap:
		from, err = r.repair(ctx, s, deliver)
	case r.ledger.wantsSnapshot():
		from, err = r.fill(ctx, s, time.Time{}, deliver)
	case r.cfg.Start == StartEarliest:
		from, err = r.earliest(ctx, s)
	case r.cfg.Start == StartLatest:
		if from, err = r.latest(ctx, s); err == nil {
			from.Unsent, err = r.passedOver(ctx, s, from)
		}
	default:
		from, err = r.fill(ctx, s, time.Time{}, deliver)
	}
	if err != nil {
		return err
	}
	return r.ledger.settle(from)
}

// latest is the end of the binlog.
func (r *Reader) latest(ctx context.Context, s *server) (relay.Position, error) {
	from := relay.Position{Flavor: s.flavor, ServerUUID: s.uuid, GTID: s.gtid}
	// The clock is asked before all: what is behind the place is committed later.
	var micros int64
	err := s.q.QueryRowContext(ctx, "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))").Scan(&micros)
	if err != nil {
		return from, fmt.Errorf("ask for the server's time: %w", err)
	}
	from.CommittedAt = time.UnixMicro(micros).UTC()
	// The set is asked for first: what is committed between the two questions is read again by GTID, never skipped.
	if s.gtid {
		if from.GTIDSet, err = s.executed(ctx, s.q); err != nil {
			return from, err
		}
	}
	files, err := binlogFiles(ctx, s.q)
	if err != nil {
		return from, err
	}
	if len(files) == 0 {
		return from, fmt.Errorf("the server lists no binlog files")
	}
	end := files[len(files)-1]
	from.File, from.Pos = end.Name, end.Size
	return from, nil
}

// passedOver is a time before which all rows were created that are in front of a place that was just taken. No clock tells: the
// rows have the writers' times. Some rows behind the place can be older; they are kept, too.
func (r *Reader) passedOver(ctx context.Context, s *server, from relay.Position) (time.Time, error) {
	mapping, err := r.mappingFor(s.columns)
	if err != nil {
		return time.Time{}, err
	}
	created, dated := mapping.Column("created_at")
	if !dated {
		return from.CommittedAt, nil
	}
	if err := r.cfg.Fence(ctx); err != nil {
		return time.Time{}, fmt.Errorf("wait for commits to become visible: %w", err)
	}
	conn, err := r.cfg.DB.Conn(ctx)
	if err != nil {
		return time.Time{}, fmt.Errorf("connect to read the outbox table: %w", err)
	}
	defer conn.Close()
	if _, err := conn.ExecContext(ctx, "SET SESSION time_zone = '+00:00'"); err != nil { // a TIMESTAMP is read in it
		return time.Time{}, fmt.Errorf("prepare to read the outbox table: %w", err)
	}
	var youngest sql.NullTime
	if err := conn.QueryRowContext(ctx, fmt.Sprintf("SELECT MAX(`%s`) FROM %s", created, r.cfg.Outbox.Quoted())).Scan(&youngest); err != nil {
		return time.Time{}, fmt.Errorf("read the outbox table: %w", err)
	}
	if !youngest.Valid {
		return from.CommittedAt, nil
	}
	return youngest.Time.UTC().Add(time.Microsecond), nil
}

// earliest is the beginning of the oldest file that the server still has.
func (r *Reader) earliest(ctx context.Context, s *server) (relay.Position, error) {
	from := relay.Position{Flavor: s.flavor, ServerUUID: s.uuid, GTID: s.gtid}
	files, err := binlogFiles(ctx, s.q)
	if err != nil {
		return from, err
	}
	if len(files) == 0 {
		return from, fmt.Errorf("the server lists no binlog files")
	}
	from.File, from.Pos = files[0].Name, 4
	var set sql.NullString
	switch {
	case s.flavor == mariaDB:
		err = s.q.QueryRowContext(ctx, "SELECT BINLOG_GTID_POS(?, 4)", from.File).Scan(&set)
	case s.gtid:
		err = s.q.QueryRowContext(ctx, "SELECT @@GLOBAL.gtid_purged").Scan(&set)
	}
	if err != nil {
		return from, fmt.Errorf("ask for the oldest GTIDs: %w", err)
	}
	from.GTIDSet = strings.ReplaceAll(set.String, "\n", "")
	return from, nil
}

// validate refuses to stream from a place that the server cannot serve without a gap, before it is asked to.
// A server that is behind gets patience to catch up.
func (r *Reader) validate(ctx context.Context, s *server, from relay.Position, patience time.Duration) error {
	if !s.gtid {
		if err := validateFile(s, from); err != nil {
			return err
		}
	}
	if err := r.validateHistory(ctx, s, from); err != nil {
		return err
	}
	switch {
	case s.gtid && s.flavor == mySQL:
		return r.validateSet(ctx, s, from, patience)
	case s.gtid:
		return r.validateDomains(ctx, s, from, patience)
	}
	return nil
}

// validateSet checks purged ⊆ place ⊆ executed. A server that is behind may be about to catch up: the dump thread sends a
// transaction a moment before the server counts it as executed. One that has nothing at all of the place is not behind: its
// history is another one.
func (r *Reader) validateSet(ctx context.Context, s *server, from relay.Position, patience time.Duration) error {
	for deadline := time.Now().Add(patience); ; {
		var unpurged, executed, unknown bool
		err := s.q.QueryRowContext(ctx, `SELECT GTID_SUBSET(@@GLOBAL.gtid_purged, ?), GTID_SUBSET(?, @@GLOBAL.gtid_executed),
			GTID_SUBSET(?, GTID_SUBTRACT(?, @@GLOBAL.gtid_executed))`,
			from.GTIDSet, from.GTIDSet, from.GTIDSet, from.GTIDSet).Scan(&unpurged, &executed, &unknown)
		switch {
		case err != nil:
			return fmt.Errorf("compare the checkpoint with the server's GTIDs: %w", err)
		case executed && unpurged:
			return nil
		case executed:
			return relay.Haltf(relay.BinlogPurged, "the server has purged transactions that the checkpoint has not passed: %s", startAnew)
		case unknown:
			return rebuilt()
		case time.Now().After(deadline):
			return relay.Haltf(relay.SourceBehind, "the checkpoint has transactions that the server has not: "+
				"it was restored from a backup or a failover lost them; compare gtid_executed with relay_checkpoint")
		}
		if !pause(ctx, 100*time.Millisecond) {
			return errStopped
		}
	}
}

const behindPatience = 3 * time.Second

// validateDomains checks that the server has logged the last transaction of each domain. Whether it still has what is behind
// the place, MariaDB itself checks when the dump starts.
func (r *Reader) validateDomains(ctx context.Context, s *server, from relay.Position, patience time.Duration) error {
	for deadline := time.Now().Add(patience); ; {
		var logged string
		if err := s.q.QueryRowContext(ctx, "SELECT @@GLOBAL.gtid_binlog_state").Scan(&logged); err != nil {
			return fmt.Errorf("ask for the server's GTIDs: %w", err)
		}
		seen, err := compareDomains(from.GTIDSet, logged)
		switch {
		case err != nil:
			return relay.Haltf(relay.CheckpointBad, "the checkpoint's GTIDs cannot be compared with the server's: %w", err)
		case seen == nothing, s.took(from):
			return rebuilt()
		case seen == everything:
			return nil
		case time.Now().After(deadline):
			return relay.Haltf(relay.SourceBehind, "the checkpoint is at %s, the server has logged only %s: "+
				"it was restored from a backup, or a failover lost transactions", from.GTIDSet, logged)
		}
		if !pause(ctx, 100*time.Millisecond) {
			return errStopped
		}
	}
}

// took tells whether a MariaDB server has the number of the one that made all transactions of the place, and is another one:
// its own transactions have the same names and are others. A server of before 10.6 has no other identity than the number.
func (s *server) took(from relay.Position) bool {
	known := from.ServerUUID != "" && !strings.HasPrefix(from.ServerUUID, numbered)
	return known && from.ServerUUID != s.uuid && onlyFrom(from.GTIDSet, s.variables["server_id"])
}

// validateFile checks a place without GTIDs: same server, and an offset that can be asked for.
func validateFile(s *server, from relay.Position) error {
	if from.ServerUUID != s.uuid {
		return relay.Haltf(relay.SourceChanged, "the checkpoint %s:%d belongs to server %s, this is %s: without GTIDs a place "+
			"means nothing to another server", from.File, from.Pos, from.ServerUUID, s.uuid)
	}
	if from.Pos > math.MaxUint32 {
		return relay.Haltf(relay.SourceChanged, "the checkpoint is at %d in %s: without GTIDs no server can resume behind 4 GiB", from.Pos, from.File)
	}
	return nil
}

// pause waits, and tells whether ctx still lives.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
