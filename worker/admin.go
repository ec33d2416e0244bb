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
	if !ops.ReadObject(w, r, &which, `{"message_id": "..."} or {"all": true}, with "accept_old": true if need be`) {
		return
	}
	if which.All == (which.MessageID != "") {
		ops.WriteProblem(w, ops.Problem{Status: http.StatusUnprocessableEntity, Code: "invalid", Detail: "give either message_id or all"})
		return
	}
	redrive := worker.Redrive
	if which.AcceptOld { // who calls knows that they were not applied
		redrive = worker.RedriveOld
	}
	redriven, err := redrive(r.Context(), which.MessageID)
	answer(w, redriven, err)
}

// drop answers POST /dead-letters/drop.
func drop(w http.ResponseWriter, r *http.Request, worker *consume.Worker) {
	var which struct {
		MessageID string `json:"message_id"`
	}
	if !ops.ReadObject(w, r, &which, `{"message_id": "..."}`) {
		return
	}
	if which.MessageID == "" {
		ops.WriteProblem(w, ops.Problem{Status: http.StatusUnprocessableEntity, Code: "invalid", Detail: "give a message_id"})
		return
	}
	dropped, err := worker.Drop(r.Context(), which.MessageID)
	answer(w, dropped, err)
}

// answer tells what was done with dead letters.
func answer(w http.ResponseWriter, done any, err error) {
	switch {
	case errors.Is(err, consume.ErrNoDeadLetter):
		ops.WriteProblem(w, ops.Problem{Status: http.StatusNotFound, Code: "no_dead_letter", Detail: "no dead letter has this message_id"})
	case err != nil:
		brokerProblem(w)
	default:
		ops.WriteJSON(w, http.StatusOK, done)
	}
}

// brokerProblem leaves out what the library said: the log has it.
func brokerProblem(w http.ResponseWriter) {
	ops.WriteProblem(w, ops.Problem{Status: http.StatusServiceUnavailable, Code: consume.NotConnected,
		Detail: "the broker did not do it all; what was redriven so far stays redriven, try again"})
}
