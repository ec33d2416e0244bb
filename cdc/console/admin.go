package console

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"time"

	"tailbox/cdc/audit"
	"tailbox/cdc/binlog"
	"tailbox/cdc/quarantine"
	"tailbox/cdc/relay"
	"tailbox/deploy/ops"
)

// Course is what an operator changes of a relay; relay.Relay has it.
type Course interface {
	Pause(ctx context.Context) error
	Resume(ctx context.Context) error
	Move(ctx context.Context, to relay.Position) error
	Leading() (epoch uint64, ok bool)
}

// Places finds places in the source's binlog; binlog.Reader has it.
type Places interface {
	Locate(ctx context.Context, target binlog.Target) (relay.Position, error)
	Compare(ctx context.Context, from, to relay.Position, within time.Duration) (binlog.Difference, error)
}

// Quarantine keeps what cannot be a message; quarantine.Store has it.
type Quarantine interface {
	List(ctx context.Context, limit int, after uint64) (entries []quarantine.Entry, total int, err error)
	Retry(ctx context.Context, id uint64, by audit.Entry) (quarantine.Entry, error)
	Drop(ctx context.Context, id uint64, by audit.Entry) (quarantine.Entry, error)
}

// Audit keeps who changed what; audit.Log has it.
type Audit interface {
	Append(ctx context.Context, e audit.Entry) error
	List(ctx context.Context, limit int) ([]audit.Record, error)
}

// Admin is the calls by which operators change a relay, and what they left behind. What changes something asks for the
// token, and is kept in the audit before it is done.
type Admin struct {
	Token      ops.Secret
	View       View
	Course     Course
	Places     Places
	Quarantine Quarantine
	Audit      Audit
}

// How long an operator's call may take, and how long its answer may then take to arrive.
const (
	callTimeout   = 45 * time.Second
	answerTimeout = 60 * time.Second
	countTimeout  = 5 * time.Second  // of each count of a move
	listTimeout   = 10 * time.Second // of a list, so that its answer is out before the server cuts it off
)

// Routes adds the calls to mux.
func (a Admin) Routes(mux *http.ServeMux) {
	for call, handler := range map[string]http.HandlerFunc{"GET /audit": a.listAudit, "GET /quarantine": a.listQuarantine} {
		mux.HandleFunc(call, func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithTimeout(r.Context(), listTimeout)
			defer cancel()
			handler(w, r.WithContext(ctx))
		})
	}
	for call, handler := range map[string]http.HandlerFunc{
		"POST /pause": a.pause, "POST /resume": a.resume, "PUT /position": a.move,
		"POST /quarantine/{id}/retry": a.retry, "DELETE /quarantine/{id}": a.drop,
	} {
		mux.HandleFunc(call, ops.Guard(a.Token, func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTimeout)) // a test's recorder has none
			ctx, cancel := context.WithTimeout(r.Context(), callTimeout)
			defer cancel()
			handler(w, r.WithContext(ctx))
		}))
	}
}

// by is who makes a call, and why: what X-Actor says of the caller, and where the call came from, which it cannot choose.
func by(r *http.Request, why string) audit.Entry {
	actor, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		actor = r.RemoteAddr
	}
	if name := strings.TrimSpace(r.Header.Get("X-Actor")); name != "" {
		actor = name[:min(len(name), maxActorName)] + " (" + actor + ")"
	}
	if why == "" {
		why = r.URL.Query().Get("why")
	}
	return audit.Entry{Actor: actor, Why: why}
}

const maxActorName = 180

// record keeps what is about to be done. When it tells false, the call was answered and nothing may be done.
func (a Admin) record(w http.ResponseWriter, r *http.Request, e audit.Entry) bool {
	if err := a.Audit.Append(r.Context(), e); err != nil {
		ops.WriteProblem(w, ops.Problem{Status: http.StatusServiceUnavailable, Code: "not_recorded",
			Detail: "it could not be recorded in relay_audit, so nothing was done"})
		return false
	}
	return true
}

// failed answers a call that could not be done, or whose end was not waited for, and records that.
func (a Admin) failed(w http.ResponseWriter, r *http.Request, e audit.Entry, err error) {
	code, outcome := "not_done", "_failed"
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		code, outcome = "not_waited_for", "_unanswered"
	}
	e.Action, e.After = e.Action+outcome, nil
	recording, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), 5*time.Second)
	defer cancel()
	_ = a.Audit.Append(recording, e) // the entry of the attempt stands
	if standby := (*relay.StandbyError)(nil); errors.As(err, &standby) {
		writeStandby(w, standby.Leader)
		return
	}
	ops.WriteProblem(w, ops.Problem{Status: http.StatusServiceUnavailable, Code: code, Detail: err.Error()})
}

// leads gives the epoch of a relay that leads. When it tells false, the call was answered.
func (a Admin) leads(w http.ResponseWriter) (epoch uint64, ok bool) {
	if epoch, ok = a.Course.Leading(); !ok {
		a.standby(w)
	}
	return epoch, ok
}

// standby answers a call that only the leader can do.
func (a Admin) standby(w http.ResponseWriter) {
	status := a.View.Relay()
	leader := status.Leader
	if status.Me {
		leader = "" // it is about to be somebody else
	}
	writeStandby(w, leader)
}

func writeStandby(w http.ResponseWriter, leader string) {
	then := "; ask the leader"
	if leader == "" {
		then = "; try again in a moment"
	}
	ops.WriteProblem(w, ops.Problem{Status: http.StatusConflict, Code: "standby", Leader: leader,
		Detail: (&relay.StandbyError{Leader: leader}).Error() + then})
}
