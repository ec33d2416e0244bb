package handler

import (
	"context"
	"errors"
	"net/http"

	"github.com/gin-gonic/gin"
	"go.uber.org/zap"

	"tailbox/api/store"
	"tailbox/deploy/ops"
)

// refusal is an error that has its answer with it.
type refusal struct {
	ops.Problem
	retryAfter string // seconds; empty for none
}

func (r refusal) Error() string { return r.Detail }

func refused(status int, code, detail string, fields ...ops.FieldError) error {
	return refusal{Problem: ops.Problem{Status: status, Code: code, Detail: detail, Errors: fields}}
}

var problemInternal = ops.Problem{
	Status: http.StatusInternalServerError, Code: "internal",
	Detail: "The request could not be handled. This is a fault of the server.",
}

// clientGone is counted, not sent: nobody is left to read it.
const clientGone = 499

// answer turns a handler's error into the problem it stands for.
func (a *api) answer(handle func(c *gin.Context) error) gin.HandlerFunc {
	return func(c *gin.Context) {
		err := handle(c)
		if err == nil {
			return
		}
		if errors.Is(c.Request.Context().Err(), context.Canceled) {
			c.Status(clientGone)
			return
		}
		r := a.refusalFor(c, err)
		if r.retryAfter != "" {
			c.Header("Retry-After", r.retryAfter)
		}
		ops.WriteProblem(c.Writer, r.Problem)
	}
}

func (a *api) refusalFor(c *gin.Context, err error) refusal {
	var known refusal
	switch {
	case errors.As(err, &known):
		return known
	case errors.Is(err, store.ErrNotFound):
		return notFound
	case errors.Is(err, store.ErrStale):
		return refusal{Problem: ops.Problem{Status: http.StatusPreconditionFailed, Code: "stale",
			Detail: "The customer has another version than If-Match names. Read it again."}}
	case errors.Is(err, store.ErrRunning):
		return refusal{retryAfter: "1", Problem: ops.Problem{Status: http.StatusConflict, Code: "idempotency_key_running",
			Detail: "The first request with this Idempotency-Key has not ended yet. Send this one again."}}
	case errors.Is(err, store.ErrKeyReused):
		return refusal{Problem: ops.Problem{Status: http.StatusUnprocessableEntity, Code: "idempotency_key_reused",
			Detail: "This Idempotency-Key came with another request before. Use a fresh key."}}
	case errors.Is(err, store.ErrUnavailable):
		a.failed(c, "database unavailable", err)
		return refusal{retryAfter: "1", Problem: ops.Problem{Status: http.StatusServiceUnavailable, Code: "unavailable",
			Detail: "The database is not available just now. With an Idempotency-Key it is safe to send the request again."}}
	default:
		a.failed(c, "request failed", err)
		return refusal{Problem: problemInternal}
	}
}

var notFound = refusal{Problem: ops.Problem{Status: http.StatusNotFound, Code: "no_such_customer",
	Detail: "There is no customer with this id."}}

// failed logs the kind of an error, never its text: a driver's text can carry a row's values.
func (a *api) failed(c *gin.Context, message string, err error) {
	a.Log.Error(message, zap.String("method", c.Request.Method), zap.String("route", c.FullPath()),
		zap.Uint16("mysql_code", ops.MySQLCode(err)), zap.Bool("timed_out", errors.Is(err, context.DeadlineExceeded)))
}

func refuse(status int, code, detail string) gin.HandlerFunc {
	return func(c *gin.Context) {
		ops.WriteProblem(c.Writer, ops.Problem{Status: status, Code: code, Detail: detail})
	}
}
