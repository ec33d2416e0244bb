package console

import (
	"errors"
	"net/http"
	"strconv"
	"time"

	"tailbox/cdc/binlog"
	"tailbox/cdc/relay"
	"tailbox/deploy/ops"
)

// moveBody is the body of PUT /position.
type moveBody struct {
	GTIDSet  *string    `json:"gtid_set"`
	File     *string    `json:"file"`
	Pos      *uint64    `json:"pos"`
	Time     *time.Time `json:"time"`
	Snapshot *bool      `json:"snapshot"`
	Why      string     `json:"why"`
}

const moveForm = `one of {"gtid_set": "..."}, {"file": "...", "pos": 4}, {"time": "2006-01-02T15:04:05Z"} and {"snapshot": true}, with "why" if you like`

// Move is the answer of PUT /position.
type Move struct {
	DryRun     bool   `json:"dry_run"`
	From       Place  `json:"from"`        // what is confirmed
	To         Goal   `json:"to"`          // where it goes on, or would
	SentAgain  Rows   `json:"sent_again"`  // rows that were sent and come again
	Skipped    Rows   `json:"skipped"`     // rows that were not confirmed and never are
	NeedsForce bool   `json:"needs_force"` // it would skip rows, or nobody knows whether it would
	State      string `json:"state"`       // of the relay, afterwards
}

// Goal is a place to go on from.
type Goal struct {
	Place
	Snapshot bool `json:"snapshot"`
}

// Rows is a number of outbox rows.
type Rows struct {
	Rows    uint64 `json:"rows"`
	AtLeast bool   `json:"at_least"` // there may be more: the time for counting was over
}

// target is what the body asks for; a field error when it is not exactly one thing.
func (b moveBody) target() (t binlog.Target, wrong []ops.FieldError) {
	given := 0
	if b.GTIDSet != nil {
		t.GTIDSet, given = *b.GTIDSet, given+1
	}
	if b.File != nil || b.Pos != nil {
		given++
		if b.File == nil || *b.File == "" {
			wrong = append(wrong, ops.FieldError{Field: "file", Detail: "is needed with pos"})
		} else if b.Pos == nil {
			wrong = append(wrong, ops.FieldError{Field: "pos", Detail: "is needed with file; a file begins at 4"})
		} else {
			t.File, t.Pos = *b.File, *b.Pos
		}
	}
	if b.Time != nil {
		t.Time, given = *b.Time, given+1
	}
	if b.Snapshot != nil {
		t.Snapshot, given = *b.Snapshot, given+1
		if !*b.Snapshot {
			wrong = append(wrong, ops.FieldError{Field: "snapshot", Detail: "can only be true"})
		}
	}
	if given != 1 {
		wrong = append(wrong, ops.FieldError{Field: "body", Detail: "give " + moveForm})
	}
	return t, wrong
}

// move answers PUT /position.
func (a Admin) move(w http.ResponseWriter, r *http.Request) {
	// What is asked for.
	var body moveBody
	if !ops.ReadObject(w, r, &body, moveForm) {
		return
	}
	target, wrong := body.target()
	dry, wrong := readSwitch(r, "dry_run", wrong)
	force, wrong := readSwitch(r, "force", wrong)
	if len(wrong) > 0 {
		ops.WriteProblem(w, ops.Problem{Status: http.StatusUnprocessableEntity, Code: "invalid", Errors: wrong})
		return
	}
	epoch, ok := a.leads(w)
	if !ok {
		return
	}

	// What it means.
	to, move, ok := a.plan(w, r, target)
	if !ok {
		return
	}
	if move.DryRun = dry; dry {
		ops.WriteJSON(w, http.StatusOK, move)
		return
	}
	if move.NeedsForce && !force {
		ops.WriteProblem(w, ops.Problem{Status: http.StatusConflict, Code: "would_skip", Detail: "it would skip " + move.Skipped.text() +
			" that nobody has confirmed; ask with ?dry_run=true to see it, or with ?force=true to do it all the same"})
		return
	}

	// The change, recorded first.
	entry := by(r, body.Why)
	entry.Action, entry.Epoch, entry.Before, entry.After = "position_set", epoch, move.From, move
	if !a.record(w, r, entry) {
		return
	}
	if err := a.Course.Move(r.Context(), to); err != nil {
		a.failed(w, r, entry, err)
		return
	}
	move.State = string(a.View.Relay().State)
	ops.WriteJSON(w, http.StatusOK, move)
}

// plan finds the target and tells what moving there means. When it tells false, the call was answered.
func (a Admin) plan(w http.ResponseWriter, r *http.Request, target binlog.Target) (relay.Position, Move, bool) {
	to, err := a.Places.Locate(r.Context(), target)
	if refused := (*binlog.TargetError)(nil); errors.As(err, &refused) {
		ops.WriteProblem(w, ops.Problem{Status: http.StatusUnprocessableEntity, Code: "bad_position", Detail: refused.Problem})
		return to, Move{}, false
	}
	if err != nil {
		sourceProblem(w)
		return to, Move{}, false
	}
	status := a.View.Relay()
	from := status.ConfirmedAt
	if from.IsZero() {
		from = status.Saved
	}
	move := Move{From: place(from), To: Goal{Place: place(to), Snapshot: to.Snapshot}, State: string(status.State)}
	if from.IsZero() && !to.Snapshot { // a checkpoint that cannot be read, or a snapshot that is not done
		move.NeedsForce, move.SentAgain.AtLeast, move.Skipped.AtLeast = true, true, true
		return to, move, true
	}
	difference, err := a.Places.Compare(r.Context(), from, to, countTimeout)
	if err != nil {
		sourceProblem(w)
		return to, Move{}, false
	}
	move.SentAgain, move.Skipped = Rows(difference.Again), Rows(difference.Skipped)
	move.NeedsForce = move.Skipped.Rows > 0 || move.Skipped.AtLeast
	return to, move, true
}

// sourceProblem leaves out what the server said: the log of the relay itself has it.
func sourceProblem(w http.ResponseWriter) {
	ops.WriteProblem(w, ops.Problem{Status: http.StatusServiceUnavailable, Code: string(relay.SourceDown),
		Detail: "the source could not be asked, so nothing was done; try again"})
}

// text is the number in words.
func (r Rows) text() string {
	text := strconv.FormatUint(r.Rows, 10) + " outbox rows"
	if r.Rows == 1 {
		text = "1 outbox row"
	}
	if r.AtLeast {
		return "at least " + text
	}
	return text
}

// readSwitch reads true or false from the query; one that is not given is false.
func readSwitch(r *http.Request, name string, wrong []ops.FieldError) (bool, []ops.FieldError) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return false, wrong
	}
	on, err := strconv.ParseBool(text)
	if err != nil {
		wrong = append(wrong, ops.FieldError{Field: name, Detail: "must be true or false"})
	}
	return on, wrong
}
