package binlog

import (
	"context"
	"errors"
	"time"

	"tailbox/cdc/relay"
)

// OnGap is what happens when the binlog does not lead on from the checkpoint.
type OnGap string

// The values of ON_GAP.
const (
	GapRepair OnGap = "repair" // send from the outbox table what may be missing, then stream on
	GapHalt   OnGap = "halt"
)

// Repair is a gap in the binlog that is being, or was, filled from the outbox table.
//
// Which gaps can be: those where the table has all that the binlog has lost. After binlog_purged (the server has deleted
// files) and history_reset (it has begun its binlog anew, was rebuilt from a dump, or its gtid_mode was changed) the table still holds every event that
// was committed and not confirmed, because nobody deletes such a row: see package retention, which relies in turn on a repair
// that is complete. The other reasons halt, whatever ON_GAP says:
//   - source_behind: the server has lost transactions whose events were sent. The table would give all that survived, but
//     nothing takes back what was sent, and a person has to know.
//   - source_changed: without GTIDs a place says nothing about another server, so it may be behind as well.
//   - source_incident, not_row_logged, xa_unsupported, schema_mismatch: the binlog is there and cannot be trusted.
//
// What is sent: the rows that may be unconfirmed, that is those created after the last confirmed commit. An event is created
// before it is committed, and by another clock, so the rows of a margin before that are sent, too: an hour, or twice the
// longest time between the two that this relay has ever seen, whichever is more. So a row is missed only if its transaction
// or the difference of clocks is longer than an hour and more than twice as long as any before it. Older rows were confirmed.
// Where the table has no created_at, or the checkpoint is of a release that did not keep the time, all rows are sent.
// The margin is no setting: what it costs are duplicates, which consumers know by their id, and what a wrong one would cost
// is an event.
//
// No place exists until the last of these rows is confirmed, so no checkpoint is saved before: a relay that is killed in the
// middle finds the same gap again and sends all of it again.
type Repair struct {
	Reason relay.Reason
	Detail string
	From   relay.Position // from here the binlog did not lead on
	To     relay.Position // from here the stream goes on; zero until it is known
	Since  time.Time      // rows created before were confirmed; zero: every row is sent
	Rows   uint64         // sent so far
	Began  time.Time
	Ended  time.Time // when the last row was read; zero while it is under way
}

const repairMargin = time.Hour

// maxRepairs is how many gaps in a row, without a transaction between them, are repaired. More are a mistake of ours, and
// would send the same rows for ever.
const maxRepairs = 3

// repairable tells whether a halt is a gap that is to be repaired.
func (r *Reader) repairable(halt *relay.Halt) bool {
	return r.cfg.OnGap != GapHalt && (halt.Reason == relay.BinlogPurged || halt.Reason == relay.HistoryReset)
}

// leave gives up the place because of a gap, for a repair to find the next one. It tells whether err is such a gap.
func (r *Reader) leave(err error) bool {
	gap, ok := errors.AsType[*relay.Halt](err)
	if !ok || !r.repairable(gap) {
		return false
	}
	from, moved := r.ledger.leave()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.repairs++
	if moved {
		r.repairs = 1
	}
	if r.repairs > maxRepairs {
		return false
	}
	r.gap = &Repair{Reason: gap.Reason, Detail: gap.Err.Error(), From: from}
	return true
}

// repair sends what the binlog may have lost and gives the place to stream from.
func (r *Reader) repair(ctx context.Context, s *server, deliver func(relay.Row) error) (relay.Position, error) {
	mapping, err := r.mappingFor(s.columns)
	if err != nil {
		return relay.Position{}, err
	}
	_, dated := mapping.Column("created_at")
	r.changeRepair(func(gap *Repair) {
		gap.Began, gap.Rows, gap.To = time.Now(), 0, relay.Position{}
		gap.Since = unconfirmedSince(gap.From)
		if !dated {
			gap.Since = time.Time{}
		}
	})
	gap, _ := r.Repair()
	r.tell(ctx, gap)
	to, err := r.fill(ctx, s, gap.Since, func(row relay.Row) error {
		row.Repaired = true
		if err := deliver(row); err != nil {
			return err
		}
		r.changeRepair(func(gap *Repair) { gap.Rows++ })
		return nil
	})
	if err != nil {
		return to, err
	}
	r.changeRepair(func(gap *Repair) { gap.To, gap.Ended = to, time.Now() })
	gap, _ = r.Repair()
	r.tell(ctx, gap)
	return to, nil
}

// unconfirmedSince is the creation time from which on rows may be unconfirmed.
func unconfirmedSince(from relay.Position) time.Time {
	if from.CommittedAt.IsZero() {
		return time.Time{}
	}
	return from.CommittedAt.Add(-max(repairMargin, 2*from.Late))
}

func (r *Reader) changeRepair(change func(*Repair)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	change(r.gap)
}

func (r *Reader) tell(ctx context.Context, gap Repair) {
	if r.cfg.Repairing != nil {
		r.cfg.Repairing(ctx, gap)
	}
}

// Repair is the last repair since Begin, if there was one.
func (r *Reader) Repair() (Repair, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gap == nil {
		return Repair{}, false
	}
	return *r.gap, true
}

// Repairing implements relay.Source.
func (r *Reader) Repairing() bool {
	_, repairing := r.Repair()
	return repairing
}
