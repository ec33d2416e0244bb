package main

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"tailbox/deploy/ops"
	"tailbox/worker/consume"
)

const (
	defaultLetters = 100
	mostLetters    = 1000
	maxBody        = 16 << 10
)

// admin lets only those through who show the token.
func admin(token ops.Secret, next http.HandlerFunc) http.HandlerFunc {
	want := sha256.Sum256([]byte(token.Reveal()))
	return func(w http.ResponseWriter, r *http.Request) {
		if token == "" {
			ops.WriteProblem(w, ops.Problem{Status: http.StatusForbidden, Code: "admin_disabled", Detail: "ADMIN_TOKEN is not set"})
			return
		}
		kind, shown, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		got := sha256.Sum256([]byte(shown)) // of one length, so that comparing tells nothing of the token's
		if !strings.EqualFold(kind, "Bearer") || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			ops.WriteProblem(w, ops.Problem{Status: http.StatusUnauthorized, Detail: "the bearer token is missing or wrong"})
			return
		}
		next(w, r)
	}
}

// list answers GET /dead-letters.
func list(w http.ResponseWriter, r *http.Request, worker *consume.Worker) {
	limit := defaultLetters
	if text := r.URL.Query().Get("limit"); text != "" {
		var err error
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > mostLetters {
			ops.WriteProblem(w, ops.Problem{Status: http.StatusUnprocessableEntity, Errors: []ops.FieldError{
				{Field: "limit", Detail: "must be a whole number from 1 to " + strconv.Itoa(mostLetters)}}})
			return
		}
	}
	letters, total, err := worker.DeadLetters(r.Context(), limit)
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
	}
	body := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	body.DisallowUnknownFields()
	if body.Decode(&which) != nil || body.More() {
		ops.WriteProblem(w, ops.Problem{Status: http.StatusBadRequest, Detail: `the body must be {"message_id": "..."} or {"all": true}`})
		return
	}
	if which.All == (which.MessageID != "") {
		ops.WriteProblem(w, ops.Problem{Status: http.StatusUnprocessableEntity, Detail: "give either message_id or all"})
		return
	}
	redriven, err := worker.Redrive(r.Context(), which.MessageID)
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
