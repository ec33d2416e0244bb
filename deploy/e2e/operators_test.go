package e2e_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/deploy/services"
	"tailbox/schema"
	"tailbox/schema/schematest"
)

// ask makes a call of an operator to the relay and requires its status.
func (w *world) ask(method, path, body string, status int, into any) {
	w.t.Helper()
	request, err := http.NewRequestWithContext(w.t.Context(), method, w.cdc.URL(path), strings.NewReader(body))
	require.NoError(w.t, err)
	request.Header.Set("Authorization", "Bearer dev")
	request.Header.Set("X-Actor", "e2e")
	answer, err := (&http.Client{Timeout: time.Minute, Transport: client.Transport}).Do(request)
	require.NoError(w.t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	require.NoError(w.t, err)
	require.Equal(w.t, status, answer.StatusCode, "%s %s: %s", method, path, text)
	if into != nil {
		require.NoError(w.t, json.Unmarshal(text, into))
	}
}

// cli runs a command of cdc against the relay and gives what it printed; it must exit with that code.
func (w *world) cli(code int, args ...string) string {
	w.t.Helper()
	cmd := exec.CommandContext(w.t.Context(), filepath.Join(binaries, "cdc"), args...)
	cmd.Env = append(os.Environ(), "CDC_URL="+w.cdc.URL(""), "ADMIN_TOKEN=dev", "USER=e2e-cli")
	out, err := cmd.CombinedOutput()
	if code == 0 {
		require.NoError(w.t, err, "%s", out)
	}
	require.Equal(w.t, code, cmd.ProcessState.ExitCode(), "%s", out)
	return string(out)
}

// quarantined is what the relay says of an event in quarantine.
type quarantined struct {
	ID       int
	EventID  string `json:"event_id"`
	Reason   string
	Attempts int
}

func (w *world) quarantine() []quarantined {
	w.t.Helper()
	var list struct {
		Events []quarantined
		Total  int
	}
	w.ask(http.MethodGet, "/quarantine?limit=1000", "", http.StatusOK, &list)
	require.Len(w.t, list.Events, list.Total)
	return list.Events
}

// restart ends the relay in good order and starts it with these settings besides those it had.
func (w *world) restart(env ...string) {
	w.t.Helper()
	require.NoError(w.t, w.cdc.Process().Signal(syscall.SIGTERM))
	require.NoError(w.t, w.cdc.Process().Wait(w.t.Context()))
	w.cdc = w.service("cdc", append([]string{"ADMIN_TOKEN=dev"}, env...)...)
	w.stream()
}

// stream starts the relay and waits until it leads and its snapshot is over: what is committed during one is sent twice.
func (w *world) stream() {
	w.t.Helper()
	w.start(w.cdc)
	w.waitFor("the relay to stream, or to be paused", time.Minute, func() bool {
		state := w.position().State
		return state == "streaming" || state == "paused"
	})
}

// poison are the ways in which an outbox row cannot be a message, each with the words by which the relay says so.
var poison = []struct {
	reason string
	spoil  func(*schema.Event)
}{
	{"the routing key has 309 bytes", func(e *schema.Event) { e.Type = strings.Repeat("T", 300) }},
	{"a header's name has 256 bytes", func(e *schema.Event) { e.Headers = map[string]string{strings.Repeat("h", 256): "x"} }},
	{"MAX_MESSAGE_BYTES allows 2000", func(e *schema.Event) { e.Payload = fmt.Appendf(nil, `{"name":%q}`, strings.Repeat("x", 3000)) }},
}

// commitRaw commits events that schema.Insert would refuse.
func (w *world) commitRaw(events []schema.Event) {
	w.t.Helper()
	tx, err := w.db.BeginTx(w.t.Context(), nil)
	require.NoError(w.t, err)
	for _, e := range events {
		headers, err := json.Marshal(e.Headers)
		require.NoError(w.t, err)
		_, err = tx.ExecContext(w.t.Context(), `INSERT INTO outbox (id, aggregate_type, aggregate_id, aggregate_version, type, payload, headers, created_at)
			VALUES (?, ?, ?, ?, ?, ?, NULLIF(?, 'null'), ?)`,
			e.ID, e.AggregateType, e.AggregateID, e.AggregateVersion, e.Type, e.Payload, string(headers), e.CreatedAt)
		require.NoError(w.t, err)
	}
	require.NoError(w.t, tx.Commit())
}

// mixed commits n events, ten to a transaction, of which every hundredth is poison, and tells the ids of both.
func (w *world) mixed(n int) (fit, unfit []string) {
	w.t.Helper()
	_, err := w.db.ExecContext(w.t.Context(), "ALTER TABLE outbox MODIFY type VARCHAR(300) NOT NULL")
	require.NoError(w.t, err)
	var events []schema.Event
	for i := range n {
		e := schematest.Event()
		if i%100 == 57 {
			poison[i/100%len(poison)].spoil(&e)
			unfit = append(unfit, e.ID)
		} else {
			fit = append(fit, e.ID)
		}
		if events = append(events, e); len(events) == 10 {
			w.commitRaw(events)
			events = nil
		}
	}
	return fit, unfit
}

func TestPoisonCostsOnlyItselfAndIsRetriedOrDropped(t *testing.T) {
	t.Parallel()
	w := setup(t, option{noStart: true, cdcEnv: []string{"ADMIN_TOKEN=dev", "MAX_MESSAGE_BYTES=2000"}})
	audit := w.audit("#")
	w.stream()
	fit, unfit := w.mixed(count(10_000))
	w.waitFor("the rest to be confirmed", time.Minute, func() bool { return w.position().Totals.Confirmed == len(fit) })
	require.Equal(t, fit, audit.settled(), "the rest, in order and once")
	kept := w.quarantine()
	require.Len(t, kept, len(unfit))
	for i, e := range kept {
		require.Equal(t, unfit[i], e.EventID, "exactly those that were injected")
		require.Contains(t, e.Reason, poison[i%len(poison)].reason)
	}

	require.Contains(t, w.cli(0, "quarantine"), kept[0].Reason)
	require.Contains(t, w.cli(0, "quarantine", "list", "--limit=1", "--json"), `"total":`+strconv.Itoa(len(kept)))
	require.Contains(t, w.cli(1, "quarantine", "retry", strconv.Itoa(kept[0].ID)), "(poison)")
	require.Contains(t, w.cli(1, "quarantine", "drop", "4711"), "(no_such_event)")
	require.Contains(t, w.cli(2, "quarantine", "drop", "--token=wrong", "1"), "(unauthorized)")

	// With more room the large ones are messages; the others are none, and stay or are dropped.
	w.restart("MAX_MESSAGE_BYTES=100000")
	want, left := slices.Clone(fit), []string{}
	for i, e := range kept {
		path := fmt.Sprintf("/quarantine/%d", e.ID)
		switch i % len(poison) {
		case 0:
			w.ask(http.MethodPost, path+"/retry", `{"why":"perhaps now"}`, http.StatusUnprocessableEntity, nil)
			left = append(left, e.EventID)
		case 1:
			w.ask(http.MethodDelete, path+"?why=lost", "", http.StatusOK, nil)
			w.ask(http.MethodDelete, path, "", http.StatusNotFound, nil)
		default:
			w.ask(http.MethodPost, path+"/retry", "", http.StatusOK, nil)
			want = append(want, e.EventID)
		}
	}
	require.Equal(t, want, audit.settled(), "a retried event comes after all that was published meanwhile")
	var still []string
	for i, e := range w.quarantine() {
		require.Equal(t, map[bool]int{true: 2, false: 1}[i == 0], e.Attempts)
		still = append(still, e.EventID)
	}
	require.Equal(t, left, still)
	require.Equal(t, len(kept), w.number("SELECT COUNT(*) FROM relay_audit WHERE actor LIKE 'e2e (127.0.0.1)' AND epoch > 0"))
}

func TestTheRelayHaltsAtPoisonWhereItIsTold(t *testing.T) {
	t.Parallel()
	w := setup(t, option{noStart: true, cdcEnv: []string{"ADMIN_TOKEN=dev", "ON_POISON=halt"}})
	w.audit("#")
	w.stream()
	w.mixed(100)
	w.waitFor("the relay to halt", time.Minute, func() bool { p := w.position(); return p.State == "halted" && p.Reason == "poison" })
	require.Empty(t, w.quarantine())
}

// moved is what the relay says of a move.
type moved struct {
	NeedsForce bool `json:"needs_force"`
	SentAgain  struct {
		Rows    int
		AtLeast bool `json:"at_least"`
	} `json:"sent_again"`
	Skipped struct{ Rows int }
	From    struct {
		File    string
		Pos     int
		GTIDSet string `json:"gtid_set"`
	}
}

// endOfBinlog is where the server's binlog ends at this moment.
func (w *world) endOfBinlog() (file string, pos int) {
	w.t.Helper()
	rows, err := w.db.QueryContext(w.t.Context(), "SHOW BINARY LOGS")
	require.NoError(w.t, err)
	defer rows.Close()
	columns, err := rows.Columns()
	require.NoError(w.t, err)
	into := []any{&file, &pos, new(string)}[:len(columns)]
	for rows.Next() {
		require.NoError(w.t, rows.Scan(into...))
	}
	require.NoError(w.t, rows.Err())
	return file, pos
}

func TestADryRunSaysHowManyComeAgainAndSoManyDo(t *testing.T) {
	t.Parallel()
	w := setup(t, option{noStart: true, cdcEnv: []string{"ADMIN_TOKEN=dev"}})
	audit := w.audit("#")
	w.stream()
	commit := func(n int) (ids []string) {
		for range n {
			e := schematest.Event()
			require.NoError(t, insert(t.Context(), w.db, true, e))
			ids = append(ids, e.ID)
		}
		return ids
	}
	all := commit(15)
	w.waitFor("them to be confirmed", time.Minute, func() bool { return w.position().Totals.Confirmed == len(all) })
	var here moved
	w.ask(http.MethodPut, "/position?dry_run=true", `{"snapshot":true}`, http.StatusOK, &here)
	require.Equal(t, 15, here.SentAgain.Rows, "a snapshot sends all that the table holds")
	again := commit(20)
	all = append(all, again...)
	w.waitFor("them to be confirmed", time.Minute, func() bool { return w.position().Totals.Confirmed == len(all) })

	// Back, by each name of the place.
	byFile := fmt.Sprintf(`{"file":%q,"pos":%d,"why":"replay"}`, here.From.File, here.From.Pos)
	for _, target := range []string{byFile, fmt.Sprintf(`{"gtid_set":%q}`, here.From.GTIDSet)} {
		var dry, real moved
		w.ask(http.MethodPut, "/position?dry_run=true", target, http.StatusOK, &dry)
		require.Equal(t, len(again), dry.SentAgain.Rows)
		require.False(t, dry.SentAgain.AtLeast || dry.NeedsForce)
		require.Equal(t, all, audit.settled(), "a dry run does nothing")
		w.ask(http.MethodPut, "/position", target, http.StatusOK, &real)
		require.Equal(t, dry.SentAgain, real.SentAgain)
		all = append(all, again...)
		w.waitFor("exactly those to come again", time.Minute, func() bool { return len(audit.read()) >= len(all) })
		require.Equal(t, all, audit.settled())
	}

	// Forward past what nobody has confirmed: only by force. A pause holds it back, over a restart, too.
	require.Contains(t, w.cli(0, "pause", "--why=to look"), "paused")
	w.restart()
	require.Contains(t, w.cli(0, "position"), "paused")
	skipped := commit(3)
	w.waitFor("the pause to be in force", time.Minute, func() bool { return w.position().State == "paused" })
	file, pos := w.endOfBinlog()
	end := fmt.Sprintf(`{"file":%q,"pos":%d}`, file, pos)
	require.Equal(t, all, audit.settled(), "a paused relay sends nothing")
	require.Contains(t, w.cli(1, "position", "set", "--file="+file, "--pos="+strconv.Itoa(pos)), "(would_skip)")
	require.Contains(t, w.cli(0, "position", "set", "--file="+file, "--pos="+strconv.Itoa(pos), "--dry-run"), "it needs --force")
	w.cli(2, "position", "set")
	var dry moved
	w.ask(http.MethodPut, "/position?dry_run=true", end, http.StatusOK, &dry)
	require.Equal(t, []any{true, len(skipped), 0}, []any{dry.NeedsForce, dry.Skipped.Rows, dry.SentAgain.Rows})
	w.ask(http.MethodPut, "/position?force=true", end, http.StatusOK, nil)
	w.cli(0, "resume")
	require.Equal(t, 2, w.number("SELECT COUNT(*) FROM relay_audit WHERE actor LIKE 'e2e-cli@% (127.0.0.1)' AND action IN ('pause', 'resume')"))
	all = append(all, commit(1)...)
	w.waitFor("what comes behind to be sent", time.Minute, func() bool { return len(audit.read()) >= len(all) })
	require.Equal(t, all, audit.settled())
	require.NotContains(t, all, skipped[0])
}

func TestAStandbyAnswersChangesWithTheLeadersName(t *testing.T) {
	t.Parallel()
	p := standbyWorld(t, func(_ *pair, _ int, cfg *services.Config) { cfg.Env = append(cfg.Env, "ADMIN_TOKEN=dev") })
	leader, ok := p.asks(p.cdcs[0])
	require.True(t, ok)
	p.cdc = p.cdcs[1]
	defer func() { p.cdc = nil }() // the pair looks after its own
	for _, call := range [][3]string{
		{"POST", "/pause", ""}, {"POST", "/resume", ""}, {"PUT", "/position", `{"snapshot":true}`}, {"DELETE", "/quarantine/1", ""},
	} {
		var problem struct{ Code, Leader string }
		p.ask(call[0], call[1], call[2], http.StatusConflict, &problem)
		require.Equal(t, []string{"standby", leader.Leader.ID}, []string{problem.Code, problem.Leader}, call)
	}
	require.Contains(t, p.cli(1, "pause"), leader.Leader.ID+" leads; ask the leader (standby)")
	require.Zero(t, p.number("SELECT COUNT(*) FROM relay_audit"))

	// A pause is the relay's, not an instance's: who takes over is paused, too, and resumes when it is told.
	p.cdc = p.cdcs[0]
	p.cli(0, "pause")
	require.NoError(t, p.cdcs[0].Process().Kill())
	p.cdc = p.cdcs[1]
	p.waitFor("the other to lead, paused", leaseTTL+10*time.Second, func() bool { return p.position().State == "paused" })
	require.Contains(t, p.cli(0, "resume", "--json"), `"me":true`)
	require.Equal(t, 2, p.number("SELECT COUNT(DISTINCT epoch) FROM relay_audit"))
}
