package console

import (
	"context"
	"net/http"

	"tailbox/cdc/relay"
	"tailbox/deploy/ops"
)

// why is the body of calls that need no more than that.
type why struct {
	Why string `json:"why"`
}

const whyForm = `{"why": "..."}, or empty`

// stateDocument is what the audit keeps of a pause.
type stateDocument struct {
	State relay.State `json:"state"`
}

// pause answers POST /pause.
func (a Admin) pause(w http.ResponseWriter, r *http.Request) {
	a.turn(w, r, "pause", relay.Paused, a.Course.Pause)
}

// resume answers POST /resume.
func (a Admin) resume(w http.ResponseWriter, r *http.Request) {
	a.turn(w, r, "resume", relay.Streaming, a.Course.Resume)
}

func (a Admin) turn(w http.ResponseWriter, r *http.Request, action string, into relay.State, do func(context.Context) error) {
	var body why
	if !ops.ReadObject(w, r, &body, whyForm) {
		return
	}
	epoch, ok := a.leads(w)
	if !ok {
		return
	}
	entry := by(r, body.Why)
	entry.Action, entry.Epoch = action, epoch
	entry.Before, entry.After = stateDocument{a.View.Relay().State}, stateDocument{into}
	if !a.record(w, r, entry) {
		return
	}
	if err := do(r.Context()); err != nil {
		a.failed(w, r, entry, err)
		return
	}
	ops.WriteJSON(w, http.StatusOK, a.View.Position())
}
