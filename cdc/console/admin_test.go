package console_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"tailbox/cdc/audit"
	"tailbox/cdc/binlog"
	"tailbox/cdc/console"
	"tailbox/cdc/quarantine"
	"tailbox/cdc/relay"
	"tailbox/deploy/openapitest"
	"tailbox/deploy/ops"
)

var (
	_ console.Course     = (*relay.Relay)(nil)
	_ console.Places     = (*binlog.Reader)(nil)
	_ console.Quarantine = (*quarantine.Store)(nil)
	_ console.Audit      = (*audit.Log)(nil)
)

// desk is the operators' calls in front of fakes that do what they are told and note what they were asked.
type desk struct {
	*bundle
	handler http.Handler
	standby bool
	broken  error // what the change, or a question to the database, ends in
	unheard error // what the audit ends in
	silent  bool  // the database answers no list
	to      relay.Position
	located error
	differs binlog.Difference
	asked   []string
	targets []binlog.Target
	entries []audit.Entry
	kept    []quarantine.Entry
	spec    *openapitest.Spec // which every answer is held to
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	text, err := os.ReadFile("../openapi.yaml")
	require.NoError(t, err)
	d := &desk{bundle: setup(), spec: openapitest.Read(t, text), to: relay.Position{File: "binlog.000001", Pos: 4, GTIDSet: "u:1"}}
	admin := console.Admin{Token: "open sesame", View: d.view, Course: d, Places: d, Quarantine: (*ward)(d), Audit: (*book)(d)}
	d.handler = console.New(d.view, console.Config{}).Handler(prometheus.NewRegistry(), admin.Routes)
	return d
}

func (d *desk) did(what string) error {
	d.asked = append(d.asked, what)
	return d.broken
}

func (d *desk) Pause(context.Context) error  { return d.did("pause") }
func (d *desk) Resume(context.Context) error { return d.did("resume") }
func (d *desk) Move(_ context.Context, to relay.Position) error {
	d.to = to
	return d.did("move")
}
func (d *desk) Leading() (uint64, bool) { return 7, !d.standby }
func (d *desk) Locate(_ context.Context, target binlog.Target) (relay.Position, error) {
	d.targets = append(d.targets, target)
	return d.to, d.located
}
func (d *desk) Compare(context.Context, relay.Position, relay.Position, time.Duration) (binlog.Difference, error) {
	return d.differs, nil
}

type book desk

func (b *book) Append(_ context.Context, e audit.Entry) error {
	if b.unheard == nil {
		b.entries = append(b.entries, e)
	}
	return b.unheard
}

func (b *book) List(ctx context.Context, _ int) ([]audit.Record, error) {
	if b.silent {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	var records []audit.Record
	for i, e := range b.entries {
		before, _ := json.Marshal(e.Before)
		records = append(records, audit.Record{ID: uint64(i), At: now, Actor: e.Actor, Action: e.Action, Why: e.Why, Before: before})
	}
	return records, b.broken
}

type ward desk

func (w *ward) List(ctx context.Context, limit int, after uint64) ([]quarantine.Entry, int, error) {
	if w.silent {
		<-ctx.Done()
		return nil, 0, ctx.Err()
	}
	return w.kept[min(int(after), len(w.kept)):min(int(after)+limit, len(w.kept))], len(w.kept), w.broken
}

func (w *ward) Retry(_ context.Context, id uint64, by audit.Entry) (quarantine.Entry, error) {
	w.entries = append(w.entries, by)
	return quarantine.Entry{ID: id}, w.broken
}

func (w *ward) Drop(_ context.Context, id uint64, by audit.Entry) (quarantine.Entry, error) {
	w.entries = append(w.entries, by)
	return quarantine.Entry{ID: id}, w.broken
}

const token = "Bearer open sesame"

// call makes a request with the token, and requires the status and, where it is a problem, its code.
func (d *desk) call(t *testing.T, method, target, body string, status int, code string, header ...string) string {
	t.Helper()
	request := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	request.Header.Set("Authorization", token)
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	answer := httptest.NewRecorder()
	d.handler.ServeHTTP(answer, request)
	require.Equal(t, status, answer.Code, answer.Body.String())
	d.spec.Hold(t, request, openapitest.Answer{Status: status, Header: answer.Header(), Body: answer.Body.String()})
	if code != "" {
		var problem ops.Problem
		require.NoError(t, json.Unmarshal(answer.Body.Bytes(), &problem))
		require.Equal(t, code, problem.Code, problem.Detail)
		require.Equal(t, "application/problem+json; charset=utf-8", answer.Header().Get("Content-Type"))
	}
	return answer.Body.String()
}

var changes = []struct{ method, target, body string }{
	{"POST", "/pause", ""}, {"POST", "/resume", `{"why":"done"}`}, {"PUT", "/position", `{"gtid_set":"u:1"}`},
	{"PUT", "/position?dry_run=true", `{"gtid_set":"u:1"}`}, {"POST", "/quarantine/3/retry", ""}, {"DELETE", "/quarantine/3", ""},
}

func TestNothingIsChangedWithoutTheToken(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	for _, c := range changes {
		for _, shown := range []string{"", "Bearer wrong", "Basic open sesame"} {
			d.call(t, c.method, c.target, c.body, http.StatusUnauthorized, "unauthorized", "Authorization", shown)
		}
	}
	require.Empty(t, d.asked)
	require.Empty(t, d.entries)
	require.Empty(t, d.targets)
	for _, target := range []string{"/quarantine", "/audit", "/position"} {
		d.call(t, "GET", target, "", http.StatusOK, "", "Authorization", "")
	}

	closed := console.New(d.view, console.Config{}).Handler(prometheus.NewRegistry(), console.Admin{View: d.view, Course: d}.Routes)
	d.handler = closed
	for _, c := range changes {
		d.call(t, c.method, c.target, c.body, http.StatusForbidden, "admin_disabled", "Authorization", "Bearer ")
	}
	require.Empty(t, d.asked)
}

func TestBodiesAreSmallObjectsWithKnownNames(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	for _, c := range changes {
		d.call(t, c.method, c.target, `{"why":"`+strings.Repeat("x", ops.MaxBody)+`"}`, http.StatusRequestEntityTooLarge, "too_large")
		for _, body := range []string{`{"who":"me"}`, `[]`, `{`, `{"why":7}`} {
			d.call(t, c.method, c.target, body, http.StatusBadRequest, "bad_body")
		}
	}
	require.Empty(t, d.asked)
	require.Empty(t, d.entries)
}

func TestAStandbyNamesTheLeaderAndChangesNothing(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.standby, d.status.Me, d.status.Leader = true, false, "host-2"
	d.broken = quarantine.ErrNotLeading // as the quarantine says itself
	for _, c := range changes {
		require.Contains(t, d.call(t, c.method, c.target, c.body, http.StatusConflict, "standby"), `"leader":"host-2"`)
	}
	require.Empty(t, d.asked)

	// It finds out only while it works.
	d.standby, d.broken, d.entries = false, &relay.StandbyError{Leader: "host-3"}, nil
	for _, c := range changes[:3] {
		require.Contains(t, d.call(t, c.method, c.target, c.body, http.StatusConflict, "standby"), `"leader":"host-3"`)
	}
	var actions []string
	for _, e := range d.entries {
		actions = append(actions, e.Action)
	}
	require.Equal(t, []string{"pause", "pause_failed", "resume", "resume_failed", "position_set", "position_set_failed"}, actions)
}

func TestWhatIsNotRecordedIsNotDone(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.unheard = errors.New("the table is read only")
	for _, c := range changes[:3] {
		d.call(t, c.method, c.target, c.body, http.StatusServiceUnavailable, "not_recorded")
	}
	require.Empty(t, d.asked)
}

func TestTheAuditSaysWhoAndWhy(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.call(t, "POST", "/pause", `{"why":"to look"}`, http.StatusOK, "", "X-Actor", "ada")
	d.call(t, "POST", "/resume?why=done", "", http.StatusOK, "")
	d.call(t, "DELETE", "/quarantine/3?why=lost", "", http.StatusOK, "", "X-Actor", strings.Repeat("x", 1000))
	require.Len(t, d.entries, 3)
	before, err := json.Marshal(d.entries[0].Before)
	require.NoError(t, err)
	require.Equal(t, []any{"ada (192.0.2.1)", "to look", "pause", uint64(7), `{"state":"streaming"}`},
		[]any{d.entries[0].Actor, d.entries[0].Why, d.entries[0].Action, d.entries[0].Epoch, string(before)})
	require.Equal(t, []any{"192.0.2.1", "done", "resume"}, []any{d.entries[1].Actor, d.entries[1].Why, d.entries[1].Action})
	require.Equal(t, "lost", d.entries[2].Why)
	require.True(t, strings.HasSuffix(d.entries[2].Actor, "x (192.0.2.1)"), "where it came from is never crowded out")
	require.LessOrEqual(t, len(d.entries[2].Actor), 255)

	list := d.call(t, "GET", "/audit?limit=5", "", http.StatusOK, "")
	require.Contains(t, list, `"actor":"ada (192.0.2.1)","action":"pause","why":"to look","before":{"state":"streaming"},"after":null`)
	d.call(t, "GET", "/audit?limit=0", "", http.StatusUnprocessableEntity, "invalid")
	d.broken = errors.New("away")
	d.call(t, "GET", "/audit", "", http.StatusServiceUnavailable, "source_unreachable")
}

func TestAListOfADatabaseThatIsSilentIsAnswered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		d.silent = true
		for _, list := range []string{"/audit", "/quarantine"} {
			began := time.Now()
			d.call(t, "GET", list, "", http.StatusServiceUnavailable, "source_unreachable")
			require.Less(t, time.Since(began), 25*time.Second, "the server has cut it off")
		}
	})
}

func TestAMoveAsksForExactlyOneTarget(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	at := time.Date(2026, 11, 23, 11, 0, 0, 123456000, time.UTC)
	for body, want := range map[string]binlog.Target{
		`{"gtid_set":""}`:                             {},
		`{"gtid_set":"u:1-5","why":"x"}`:              {GTIDSet: "u:1-5"},
		`{"file":"binlog.000001","pos":4}`:            {File: "binlog.000001", Pos: 4},
		`{"time":"2026-11-23T11:00:00.123456Z"}`:      {Time: at},
		`{"time":"2026-11-23T12:00:00.123456+01:00"}`: {Time: at},
		`{"snapshot":true}`:                           {Snapshot: true},
	} {
		d.targets = nil
		d.call(t, "PUT", "/position?dry_run=true", body, http.StatusOK, "")
		require.Len(t, d.targets, 1)
		require.True(t, want.Time.Equal(d.targets[0].Time))
		d.targets[0].Time = want.Time
		require.Equal(t, want, d.targets[0])
	}
	d.targets = nil
	for _, body := range []string{`{}`, `{"snapshot":false}`, `{"file":"f"}`, `{"pos":4}`, `{"file":"","pos":4}`, `{"gtid_set":"u:1","snapshot":true}`,
		`{"time":"2026-11-23T11:00:00Z","file":"f","pos":4}`} {
		d.call(t, "PUT", "/position", body, http.StatusUnprocessableEntity, "invalid")
	}
	for _, body := range []string{`{"time":"yesterday"}`, `{"pos":-1,"file":"f"}`, `{"pos":"4","file":"f"}`} {
		d.call(t, "PUT", "/position", body, http.StatusBadRequest, "bad_body")
	}
	for _, query := range []string{"dry_run=perhaps", "force=2"} {
		d.call(t, "PUT", "/position?"+query, `{"snapshot":true}`, http.StatusUnprocessableEntity, "invalid")
	}
	require.Empty(t, d.targets)
	require.Empty(t, d.asked)
}

func TestADryRunTellsWhatAMoveMeansAndDoesNothing(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.differs = binlog.Difference{Again: binlog.Count{Rows: 12}, Skipped: binlog.Count{Rows: 3, AtLeast: true}}
	var move console.Move
	require.NoError(t, json.Unmarshal([]byte(d.call(t, "PUT", "/position?dry_run=true", `{"gtid_set":"u:1"}`, http.StatusOK, "")), &move))
	require.Equal(t, console.Move{DryRun: true, From: console.Place{File: "binlog.000002", Pos: 300},
		To:        console.Goal{Place: console.Place{File: "binlog.000001", Pos: 4, GTIDSet: "u:1"}},
		SentAgain: console.Rows{Rows: 12}, Skipped: console.Rows{Rows: 3, AtLeast: true}, NeedsForce: true, State: "streaming"}, move)
	require.Empty(t, d.asked)
	require.Empty(t, d.entries)
}

func TestAMovePastUnconfirmedRowsNeedsForce(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	const body = `{"gtid_set":"u:1","why":"they are lost"}`
	d.call(t, "PUT", "/position", body, http.StatusOK, "")
	require.Equal(t, []string{"move"}, d.asked, "nothing would be skipped")
	for _, skipped := range []binlog.Count{{Rows: 1}, {AtLeast: true}} {
		d.differs, d.asked, d.entries = binlog.Difference{Skipped: skipped}, nil, nil
		d.call(t, "PUT", "/position", body, http.StatusConflict, "would_skip")
		require.Empty(t, d.asked)
		require.Empty(t, d.entries)
		d.call(t, "PUT", "/position?force=true", body, http.StatusOK, "")
		require.Equal(t, []string{"move"}, d.asked)
	}
	after, err := json.Marshal(d.entries[0].After)
	require.NoError(t, err)
	require.Equal(t, []any{"position_set", "they are lost"}, []any{d.entries[0].Action, d.entries[0].Why})
	require.Contains(t, string(after), `"skipped":{"rows":0,"at_least":true}`)

	// A place that cannot be read, as after checkpoint_corrupt, tells nothing of what would be skipped.
	d.differs, d.asked = binlog.Difference{}, nil
	d.status.ConfirmedAt, d.status.Saved = relay.Position{}, relay.Position{}
	d.call(t, "PUT", "/position", body, http.StatusConflict, "would_skip")
	d.to = relay.Position{Snapshot: true}
	d.call(t, "PUT", "/position", `{"snapshot":true}`, http.StatusOK, "")
	require.True(t, d.to.Snapshot)
}

func TestAMoveThatCannotBeDoneSaysWhy(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	d.located = &binlog.TargetError{Problem: "offset 5 lies inside a transaction"}
	require.Contains(t, d.call(t, "PUT", "/position", `{"snapshot":true}`, http.StatusUnprocessableEntity, "bad_position"), "offset 5 lies inside")
	d.located = errors.New("connection refused by root:secret@10.0.0.1")
	require.NotContains(t, d.call(t, "PUT", "/position", `{"snapshot":true}`, http.StatusServiceUnavailable, "source_unreachable"), "secret")
	d.located, d.broken = nil, errors.New("save the new place: away")
	d.call(t, "PUT", "/position", `{"snapshot":true}`, http.StatusServiceUnavailable, "not_done")
	require.Equal(t, "position_set_failed", d.entries[1].Action)
	d.broken = fmt.Errorf("move: it goes on: %w", context.DeadlineExceeded)
	d.call(t, "PUT", "/position", `{"snapshot":true}`, http.StatusServiceUnavailable, "not_waited_for")
	require.Equal(t, "position_set_unanswered", d.entries[3].Action, "it may be done yet")
}

func TestQuarantineIsListedWithoutWhatCouldBePrivate(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	require.JSONEq(t, `{"events":[],"total":0}`, d.call(t, "GET", "/quarantine", "", http.StatusOK, ""))
	for i := range 3 {
		d.kept = append(d.kept, quarantine.Entry{ID: uint64(i + 1), EventID: "e", AggregateType: "customer", AggregateID: "c", AggregateVersion: 2,
			Type: "T", PayloadBytes: 9, HeadersBytes: 4, SourcePosition: "u:5", CommittedAt: now, Reason: "too long", Attempts: 1, QuarantinedAt: now})
	}
	require.JSONEq(t, `{"total":3,"events":[{"id":2,"event_id":"e","aggregate_type":"customer","aggregate_id":"c","aggregate_version":2,"type":"T",
		"payload_bytes":9,"headers_bytes":4,"source_position":"u:5","committed_at":"2026-11-23T12:00:00.000000Z","reason":"too long","attempts":1,
		"quarantined_at":"2026-11-23T12:00:00.000000Z"}]}`, d.call(t, "GET", "/quarantine?limit=1&after=1", "", http.StatusOK, ""))
	for _, query := range []string{"limit=0", "limit=1001", "after=-1"} {
		d.call(t, "GET", "/quarantine?"+query, "", http.StatusUnprocessableEntity, "invalid")
	}
	d.broken = errors.New("away")
	d.call(t, "GET", "/quarantine", "", http.StatusServiceUnavailable, "source_unreachable")
}

func TestRetryAndDropSayWhatBecameOfTheEvent(t *testing.T) {
	t.Parallel()
	d := newDesk(t)
	for _, c := range changes[4:] {
		d.broken = nil
		require.Contains(t, d.call(t, c.method, c.target, c.body, http.StatusOK, ""), `"id":3`)
		d.broken = quarantine.ErrNotFound
		d.call(t, c.method, c.target, c.body, http.StatusNotFound, "no_such_event")
		d.call(t, c.method, strings.Replace(c.target, "3", "x", 1), c.body, http.StatusNotFound, "no_such_event")
		d.broken = errors.New("away")
		d.call(t, c.method, c.target, c.body, http.StatusServiceUnavailable, "source_unreachable")
	}
	d.broken = &quarantine.StillError{Why: relay.PoisonEvent, Err: errors.New("the type has 300 bytes")}
	require.Contains(t, d.call(t, "POST", "/quarantine/3/retry", "", http.StatusUnprocessableEntity, "poison"), "the type has 300 bytes")
	d.broken = quarantine.ErrPayloadGone
	d.call(t, "POST", "/quarantine/3/retry", "", http.StatusUnprocessableEntity, "payload_gone")
	d.broken = &quarantine.UnknownError{Err: errors.New("amqp://u:secret@h: refused")}
	require.NotContains(t, d.call(t, "POST", "/quarantine/3/retry", "", http.StatusServiceUnavailable, "broker_unreachable"), "secret")
}
