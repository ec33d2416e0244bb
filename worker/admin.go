package main

import (
	"errors"
	"net/http"

	"tailbox/deploy/ops"
	"tailbox/worker/consume"
)

const (
	defaultLetters = 100
	mostLetters    = 1000
)

// list answers GET /dead-letters.
func list(w http.ResponseWriter, r *http.Request, worker *consume.Worker) {
	limit, ok := ops.ReadNumber(w, r, "limit", 1, mostLetters, defaultLetters)
	if !ok {
		return
	}
	letters, total, err := worker.DeadLetters(r.Context(), int(limit))
	if err != nil {
		brokerProblem(w)
		return
	}
	ops.WriteJSON(w, http.StatusOK, map[string]any{"dead_letters": letters, "total": total})
}

// redrive answers POST /dead-letters/redrive.
func redrive(w http.ResponseWriter, r *http.Request, worker *consume.Worker) {
	var which struct {
		MessageID string `json:"message_id"`
		All       bool   `json:"all"`
		AcceptOld bool   `json:"accept_old"`
	}
	if !ops.ReadObject(w, r, &which, `{"message_id": "..."} or {"all": true}`) {
		return
	}
	if which.All == (which.MessageID != "") {
		ops.WriteProblem(w, ops.Problem{Status: http.StatusUnprocessableEntity, Detail: "give either message_id or all"})
		return
	}
	redrive := worker.Redrive
	if which.AcceptOld {
		redrive = worker.RedriveOld
	}
	redriven, err := redrive(r.Context(), which.MessageID)
	switch {
	case errors.Is(err, consume.ErrNoDeadLetter):
		ops.WriteProblem(w, ops.Problem{Status: http.StatusNotFound, Code: "no_dead_letter", Detail: "no dead letter has this message_id"})
	case err != nil:
		brokerProblem(w)
	default:
		ops.WriteJSON(w, http.StatusOK, redriven)
	}
}

// brokerProblem leaves out what the library said: the log has it.
func brokerProblem(w http.ResponseWriter) {
	ops.WriteProblem(w, ops.Problem{Status: http.StatusServiceUnavailable, Code: consume.NotConnected,
		Detail: "the broker did not do it all; what was redriven so far stays redriven, try again"})
}
