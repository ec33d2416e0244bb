package console

import (
	"errors"
	"net/http"
	"strconv"

	"tailbox/cdc/quarantine"
	"tailbox/cdc/relay"
	"tailbox/deploy/ops"
)

// Limits of a list.
const (
	defaultListed = 100
	mostListed    = 1000
)

// Quarantined is one event of GET /quarantine: neither its payload nor its headers, which can be private.
type Quarantined struct {
	ID               uint64 `json:"id"`
	EventID          string `json:"event_id"` // as all texts here, its beginning when it is very long
	AggregateType    string `json:"aggregate_type"`
	AggregateID      string `json:"aggregate_id"`
	AggregateVersion uint64 `json:"aggregate_version"`
	Type             string `json:"type"`
	PayloadBytes     int    `json:"payload_bytes"`
	HeadersBytes     int    `json:"headers_bytes"`
	SourcePosition   string `json:"source_position"`
	CommittedAt      string `json:"committed_at"`
	Reason           string `json:"reason"`
	Attempts         int    `json:"attempts"`
	QuarantinedAt    string `json:"quarantined_at"`
}

func quarantined(e quarantine.Entry) Quarantined {
	return Quarantined{ID: e.ID, EventID: e.EventID, AggregateType: e.AggregateType, AggregateID: e.AggregateID,
		AggregateVersion: e.AggregateVersion, Type: e.Type, PayloadBytes: e.PayloadBytes, HeadersBytes: e.HeadersBytes,
		SourcePosition: e.SourcePosition, CommittedAt: stamp(e.CommittedAt), Reason: e.Reason, Attempts: e.Attempts,
		QuarantinedAt: stamp(e.QuarantinedAt)}
}

// listQuarantine answers GET /quarantine.
func (a Admin) listQuarantine(w http.ResponseWriter, r *http.Request) {
	limit, ok := ops.ReadNumber(w, r, "limit", 1, mostListed, defaultListed)
	if !ok {
		return
	}
	after, ok := ops.ReadNumber(w, r, "after", 0, 1<<63-1, 0)
	if !ok {
		return
	}
	entries, total, err := a.Quarantine.List(r.Context(), int(limit), after)
	if err != nil {
		sourceProblem(w)
		return
	}
	events := make([]Quarantined, 0, len(entries))
	for _, e := range entries {
		events = append(events, quarantined(e))
	}
	ops.WriteJSON(w, http.StatusOK, map[string]any{"events": events, "total": total})
}

// retry answers POST /quarantine/{id}/retry.
func (a Admin) retry(w http.ResponseWriter, r *http.Request) {
	id, reason, ok := a.one(w, r)
	if !ok {
		return
	}
	entry, err := a.Quarantine.Retry(r.Context(), id, by(r, reason))
	var still *quarantine.StillError
	var unknown *quarantine.UnknownError
	switch {
	case errors.As(err, &still):
		ops.WriteProblem(w, ops.Problem{Status: http.StatusUnprocessableEntity, Code: string(still.Why), Detail: still.Error()})
	case errors.Is(err, quarantine.ErrPayloadGone):
		ops.WriteProblem(w, ops.Problem{Status: http.StatusUnprocessableEntity, Code: "payload_gone", Detail: err.Error() + "; only a drop is left"})
	case errors.As(err, &unknown):
		ops.WriteProblem(w, ops.Problem{Status: http.StatusServiceUnavailable, Code: string(relay.BrokerDown),
			Detail: "the broker did not say what became of the event, so it stays; another retry may send it a second time"})
	case err != nil:
		a.quarantineProblem(w, err)
	default:
		ops.WriteJSON(w, http.StatusOK, quarantined(entry))
	}
}

// drop answers DELETE /quarantine/{id}.
func (a Admin) drop(w http.ResponseWriter, r *http.Request) {
	id, reason, ok := a.one(w, r)
	if !ok {
		return
	}
	entry, err := a.Quarantine.Drop(r.Context(), id, by(r, reason))
	if err != nil {
		a.quarantineProblem(w, err)
		return
	}
	ops.WriteJSON(w, http.StatusOK, quarantined(entry))
}

// one reads which event a call is for, and why it is made. When it tells false, the call was answered.
func (a Admin) one(w http.ResponseWriter, r *http.Request) (id uint64, reason string, ok bool) {
	var body why
	if !ops.ReadObject(w, r, &body, whyForm) {
		return 0, "", false
	}
	id, err := strconv.ParseUint(r.PathValue("id"), 10, 64)
	if err != nil {
		a.quarantineProblem(w, quarantine.ErrNotFound)
		return 0, "", false
	}
	return id, body.Why, true
}

func (a Admin) quarantineProblem(w http.ResponseWriter, err error) {
	switch {
	case errors.Is(err, quarantine.ErrNotFound):
		ops.WriteProblem(w, ops.Problem{Status: http.StatusNotFound, Code: "no_such_event", Detail: err.Error()})
	case errors.Is(err, quarantine.ErrNotLeading):
		a.standby(w)
	default:
		sourceProblem(w)
	}
}
