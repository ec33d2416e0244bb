package console

import (
	"encoding/json"
	"net/http"

	"tailbox/deploy/ops"
)

// Audited is one entry of GET /audit.
type Audited struct {
	ID     uint64          `json:"id"`
	At     string          `json:"at"`
	Epoch  uint64          `json:"epoch"`
	Actor  string          `json:"actor"`
	Action string          `json:"action"`
	Why    string          `json:"why"`
	Before json.RawMessage `json:"before"` // null when there was nothing to tell
	After  json.RawMessage `json:"after"`
}

// listAudit answers GET /audit.
func (a Admin) listAudit(w http.ResponseWriter, r *http.Request) {
	limit, ok := ops.ReadNumber(w, r, "limit", 1, mostListed, defaultListed)
	if !ok {
		return
	}
	records, err := a.Audit.List(r.Context(), int(limit))
	if err != nil {
		sourceProblem(w)
		return
	}
	entries := make([]Audited, 0, len(records))
	for _, e := range records {
		entries = append(entries, Audited{ID: e.ID, At: stamp(e.At), Epoch: e.Epoch, Actor: e.Actor, Action: e.Action, Why: e.Why,
			Before: e.Before, After: e.After})
	}
	ops.WriteJSON(w, http.StatusOK, map[string]any{"entries": entries})
}
