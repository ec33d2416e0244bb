package main

import (
	"context"
	"time"

	"go.uber.org/zap"

	"tailbox/cdc/audit"
	"tailbox/cdc/binlog"
	"tailbox/cdc/console"
	"tailbox/cdc/relay"
)

// repairs tells people of each gap in the binlog that is filled from the outbox table: in the log and in the audit.
type repairs struct {
	log    *zap.Logger
	audit  *audit.Log
	status func() relay.Status
}

// auditPatience is how long a repair waits for the audit to take its entry. A table that cannot be written must not keep
// events from going out: the log has all of it, too.
const auditPatience = 10 * time.Second

func (r *repairs) note(ctx context.Context, repair binlog.Repair) {
	log := r.log.With(zap.String("reason", string(repair.Reason)), zap.String("from_file", repair.From.File), zap.Uint64("from_pos", repair.From.Pos),
		zap.String("from_gtid_set", repair.From.GTIDSet), zap.Time("since", repair.Since))
	if repair.Ended.IsZero() {
		log.Warn("the binlog has a gap, sending what may be missing from the outbox table", zap.String("detail", repair.Detail))
		return
	}
	log.Warn("the gap is repaired", zap.Uint64("rows", repair.Rows), zap.String("to_file", repair.To.File),
		zap.Uint64("to_pos", repair.To.Pos), zap.String("to_gtid_set", repair.To.GTIDSet), zap.Duration("took", repair.Ended.Sub(repair.Began)))

	ctx, cancel := context.WithTimeout(ctx, auditPatience)
	defer cancel()
	document := console.RepairOf(repair)
	entry := audit.Entry{Actor: "relay", Action: "repair", Why: string(repair.Reason) + ": " + repair.Detail, Epoch: r.status().Epoch,
		Before: document.From, After: document}
	for {
		err := r.audit.Append(ctx, entry)
		if err == nil {
			return
		}
		log.Warn("the audit did not take the repair, trying again", zap.Error(err))
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			log.Error("the repair is not in the audit")
			return
		}
	}
}
