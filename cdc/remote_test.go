package main

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"tailbox/deploy/ops"
)

// station is a relay that answers each call with what it is told, and notes what it was asked.
type station struct {
	*httptest.Server
	status int
	answer string
	asked  string // method, path, query and body
	header http.Header
}

func newStation(t *testing.T) *station {
	t.Helper()
	s := &station{status: http.StatusOK, answer: "{}"}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.asked, s.header = strings.TrimSpace(r.Method+" "+r.URL.String()+" "+string(body)), r.Header
		w.WriteHeader(s.status)
		_, _ = io.WriteString(w, s.answer)
	}))
	t.Cleanup(s.Close)
	return s
}

// run runs a command against the station and gives what it printed.
func (s *station) run(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := command(t.Context(), append(args, "--url="+s.URL+"/", "--token=open sesame"), &out)
	return out.String(), err
}

func TestEachCommandIsTheTwinOfItsCall(t *testing.T) {
	t.Parallel()
	s := newStation(t)
	for args, asked := range map[string]string{
		"position":                 "GET /position",
		"position show":            "GET /position",
		"position set --gtid-set=": `PUT /position?dry_run=false&force=false {"gtid_set":""}`,
		"position set --gtid-set=u:1-5 --dry-run":    `PUT /position?dry_run=true&force=false {"gtid_set":"u:1-5"}`,
		"position set --file=b.000001 --pos=157":     `PUT /position?dry_run=false&force=false {"file":"b.000001","pos":157}`,
		"position set --file=b.000001":               `PUT /position?dry_run=false&force=false {"file":"b.000001","pos":4}`,
		"position set --time=2026-11-23T11:00:00Z":   `PUT /position?dry_run=false&force=false {"time":"2026-11-23T11:00:00Z"}`,
		"position set --snapshot --force --why=lost": `PUT /position?dry_run=false&force=true {"snapshot":true,"why":"lost"}`,
		"pause --why=upgrade":                        `POST /pause {"why":"upgrade"}`,
		"resume":                                     "POST /resume {}",
		"quarantine":                                 "GET /quarantine?after=0&limit=100",
		"quarantine list --limit=5 --after=7":        "GET /quarantine?after=7&limit=5",
		"quarantine retry 3 --why=mended":            `POST /quarantine/3/retry {"why":"mended"}`,
		"quarantine drop 3":                          "DELETE /quarantine/3 {}",
	} {
		_, err := s.run(t, strings.Fields(args)...)
		require.NoError(t, err, args)
		require.Equal(t, asked, s.asked)
		require.Equal(t, "Bearer open sesame", s.header.Get("Authorization"))
		require.NotEmpty(t, s.header.Get("X-Actor"))

		s.answer = `{"some":"thing"}` + "\n"
		out, err := s.run(t, append(strings.Fields(args), "--json")...)
		require.NoError(t, err)
		require.Equal(t, s.answer, out, "the answer as it is")
		s.answer = "{}"
	}
}

func TestWrongFlagsAreBadConfigurationAndAskNothing(t *testing.T) {
	t.Parallel()
	s := newStation(t)
	for args, says := range map[string]string{
		"position set":                           "exactly one of",
		"position set --pos=4":                   "exactly one of",
		"position set --gtid-set=u:1 --snapshot": "exactly one of",
		"position set --time=yesterday":          `--time: "yesterday"`,
		"quarantine retry":                       "<id>",
		"quarantine retry x":                     "<id>",
		"quarantine burn 3":                      "burn",
		"pause --what":                           "--what",
	} {
		_, err := s.run(t, strings.Fields(args)...)
		require.ErrorIs(t, err, ops.ErrBadConfig, args)
		require.ErrorContains(t, err, says)
	}
	err := command(t.Context(), []string{"position", "--url=localhost:3001"}, io.Discard)
	require.ErrorIs(t, err, ops.ErrBadConfig)
	require.ErrorContains(t, err, "CDC_URL")
	require.Empty(t, s.asked)
}

func TestWhatTheRelayRefusesIsSaidInItsWords(t *testing.T) {
	t.Parallel()
	s := newStation(t)
	s.status = http.StatusConflict
	s.answer = `{"status":409,"code":"standby","detail":"this instance is a standby: host-2 leads; ask the leader","leader":"host-2"}`
	out, err := s.run(t, "pause")
	require.EqualError(t, err, "the relay answers 409: this instance is a standby: host-2 leads; ask the leader (standby)")
	require.NotErrorIs(t, err, ops.ErrBadConfig)
	require.Empty(t, out)

	s.status, s.answer = http.StatusUnprocessableEntity, `{"code":"invalid","errors":[{"field":"limit","detail":"must be a whole number from 1 to 1000"}]}`
	_, err = s.run(t, "quarantine", "--limit=0")
	require.EqualError(t, err, "the relay answers 422: limit must be a whole number from 1 to 1000 (invalid)")

	s.status, s.answer = http.StatusUnauthorized, `{"code":"unauthorized","detail":"the bearer token is missing or wrong"}`
	_, err = s.run(t, "pause")
	require.ErrorIs(t, err, ops.ErrBadConfig)
	require.NotContains(t, err.Error(), "open sesame")

	s.status, s.answer = http.StatusBadGateway, "<html>"
	_, err = s.run(t, "pause")
	require.ErrorContains(t, err, "the relay answers 502")
}

func TestAPersonIsShownShortLines(t *testing.T) {
	t.Parallel()
	s := newStation(t)
	print := func(answer string, args ...string) string {
		s.answer = answer
		out, err := s.run(t, args...)
		require.NoError(t, err)
		return out
	}
	require.Equal(t, `relay       default
state       blocked: unroutable
leader      host-1, epoch 7 (this instance)
source      -
read        b.000001:9  u:1-3
confirmed   b.000001:4  u:1-2
checkpoint  u:1
lag         1.500 s, 5 bytes, 2 in flight
totals      3 read, 2 confirmed, 1 quarantined, 0 repaired
`, print(`{"relay":"default","state":"blocked","reason":"unroutable","leader":{"id":"host-1","epoch":7,"me":true},
		"read":{"file":"b.000001","pos":9,"gtid_set":"u:1-3"},"confirmed":{"file":"b.000001","pos":4,"gtid_set":"u:1-2"},"checkpoint":{"gtid_set":"u:1"},
		"lag":{"seconds":1.5,"bytes":5,"in_flight":2},"totals":{"read":3,"confirmed":2,"quarantined":1}}`, "position"))
	require.Equal(t, `from        b.000001:9  u:1-3
to          b.000001:4  u:1-2
sent again  12 rows
skipped     at least 3 rows
nothing was changed; it needs --force
`, print(`{"dry_run":true,"from":{"file":"b.000001","pos":9,"gtid_set":"u:1-3"},"to":{"file":"b.000001","pos":4,"gtid_set":"u:1-2"},
		"sent_again":{"rows":12},"skipped":{"rows":3,"at_least":true},"needs_force":true}`, "position", "set", "--snapshot", "--dry-run"))
	require.Contains(t, print(`{"to":{"snapshot":true},"state":"snapshot"}`, "position", "set", "--snapshot"), "the relay goes on from there: snapshot\n")
	require.Equal(t, "paused\n", print(`{"state":"paused"}`, "pause"))
	require.Equal(t, "nothing, of 0\n", print(`{"events":[],"total":0}`, "quarantine"))
	require.Equal(t, `ID  SINCE  EVENT                                      TYPE        BYTES  POSITION  ATTEMPTS  REASON
3   now    `+strings.Repeat("é", 40)+`…  customer.T  9      u:5       1         too long
1 of 2; --after 3 goes on
`, print(`{"events":[{"id":3,"event_id":"`+strings.Repeat("é", 300)+`","aggregate_type":"customer","type":"T","payload_bytes":9,"source_position":"u:5",
		"reason":"too long","attempts":1,"quarantined_at":"now"}],"total":2}`, "quarantine"))
	require.Equal(t, "3  e-1  dropped\n", print(`{"id":3,"event_id":"e-1"}`, "quarantine", "drop", "3"))
}
