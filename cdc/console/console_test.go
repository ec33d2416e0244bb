package console_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"tailbox/cdc/binlog"
	"tailbox/cdc/checkpoint"
	"tailbox/cdc/console"
	"tailbox/cdc/relay"
	"tailbox/schema"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// bundle is a console over fixed answers.
type bundle struct {
	status relay.Status
	read   binlog.ReadPlace
	survey binlog.Survey
	repair *binlog.Repair
	view   console.View
}

func setup() *bundle {
	b := &bundle{
		status: relay.Status{State: relay.Streaming, Epoch: 7, Me: true, Leader: "host-1", ConfirmedAt: relay.Position{ServerUUID: "u", File: "binlog.000002", Pos: 300},
			Saved:   relay.Position{ServerUUID: "u", File: "binlog.000002", Pos: 100, SkipRows: 5, CommittedAt: now.Add(-time.Hour)},
			SavedAt: now.Add(-3 * time.Second),
			Totals:  relay.Totals{Read: 10, Published: 9, Confirmed: 8, Repaired: 5, Returned: 2, Refused: 1, SourceReconnects: 3, BrokerReconnects: 4}},
	}
	b.survey = binlog.Survey{At: now, Flavor: "mysql", Version: "9.7.0", UUID: "u", GTID: true, GTIDSet: "u:1-9"}
	b.survey.Add("binlog.000001", 1000)
	b.survey.Add("binlog.000002", 500)
	b.survey.Add("binlog.000003", 50)
	b.view = console.View{Name: "default", Members: func() []checkpoint.Member {
		return []checkpoint.Member{{Name: "host-1", ServerID: 7, State: "streaming", SeenAt: now}}
	}, Now: func() time.Time { return now },
		Relay:      func() relay.Status { return b.status },
		Read:       func() binlog.ReadPlace { return b.read },
		Source:     func() binlog.Survey { return b.survey },
		RoutingKey: func(e *schema.Event) string { return e.AggregateType + "." + e.Type },
		Deleted:    func() uint64 { return 6 },
		Repair: func() (binlog.Repair, bool) {
			if b.repair == nil {
				return binlog.Repair{}, false
			}
			return *b.repair, true
		},
	}
	return b
}

func (b *bundle) get(t *testing.T, path string) *httptest.ResponseRecorder {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(console.NewCollector(b.view))
	answer := httptest.NewRecorder()
	console.New(b.view, console.Config{}).Handler(registry).ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	return answer
}

func TestPositionHasEveryNameOfTheContract(t *testing.T) {
	t.Parallel()
	var got map[string]any
	require.NoError(t, json.Unmarshal(setup().get(t, "/position").Body.Bytes(), &got))
	for part, names := range map[string][]string{
		"leader":     {"id", "epoch", "me", "expires_at", "takeovers"},
		"source":     {"flavor", "version", "server_uuid", "gtid_mode", "file", "pos", "gtid_set"},
		"read":       {"file", "pos", "gtid_set", "committed_at"},
		"confirmed":  {"file", "pos", "gtid_set", "committed_at", "event_id"},
		"checkpoint": {"file", "pos", "gtid_set", "event_id", "skip_rows", "saved_at"},
		"lag":        {"seconds", "bytes", "in_flight"},
		"runway":     {"file", "bytes_behind_purge"},
		"totals":     {"read", "published", "confirmed", "returned", "nacked", "quarantined", "repaired", "deleted", "reconnects"},
	} {
		object, ok := got[part].(map[string]any)
		require.True(t, ok, part)
		for _, name := range names {
			require.Contains(t, object, name, part)
		}
	}
	require.Equal(t, "default", got["relay"])
	require.Equal(t, "streaming", got["state"])
	require.Empty(t, got["reason"])
}

func TestLagAndRunwayAreMeasuredAlongTheFiles(t *testing.T) {
	t.Parallel()
	b := setup()
	p := b.view.Position()
	require.Equal(t, uint64(200+50), p.Lag.Bytes, "the rest of the file and the next one")
	require.Equal(t, uint64(1000+100), p.Runway.Bytes, "up to the checkpoint")
	require.Equal(t, "binlog.000001", p.Runway.File)
	require.Equal(t, "binlog.000003", p.Source.File)
	require.Equal(t, uint64(50), p.Source.Pos)

	b.status.ConfirmedAt.File = "binlog.000009"
	require.Zero(t, b.view.Position().Lag.Bytes, "a file that the server does not have")
}

func TestTheRunwaySaysHowFarThePurgeIs(t *testing.T) {
	t.Parallel()
	b := setup()
	series := func(name string) string {
		for line := range strings.Lines(b.get(t, "/metrics").Body.String()) {
			if value, ok := strings.CutPrefix(line, "tailbox_relay_runway_"+name+" "); ok {
				return strings.TrimSpace(value)
			}
		}
		return ""
	}
	require.Equal(t, "1100", series("bytes"))
	require.Empty(t, series("seconds"), "the server does not purge by age")

	b.survey.Expiry = 24 * time.Hour
	require.Equal(t, "82800", series("seconds"), "committed an hour ago, kept for a day")
	require.InDelta(t, 82800, *b.view.Position().Runway.Seconds, 0.001)
	b.status.Saved.File = "binlog.000003"
	require.Empty(t, series("seconds"), "the newest file is not purged")

	b.status.Saved.File = "binlog.000000"
	require.Equal(t, "0", series("bytes"), "the checkpoint is purged")
	b.status.Saved.ServerUUID = "another"
	require.Empty(t, series("bytes"), "after a failover, until the checkpoint has a place in the new server's files")
	b.status.Saved = relay.Position{}
	require.Empty(t, series("bytes"), "there is no checkpoint yet")
}

func TestABlockedRelayTellsWhichEventWaits(t *testing.T) {
	t.Parallel()
	b := setup()
	b.status.InFlight, b.status.Waiting = 3, relay.Row{Position: "u:9", CommittedAt: now, Event: schema.Event{ID: "e", Type: "T", AggregateType: "a"}}
	require.Nil(t, b.view.Position().Waiting, "it is on its way")
	b.status.State, b.status.Reason = relay.Stalled, relay.Unroutable
	require.Equal(t, &console.Waiting{EventID: "e", Type: "T", AggregateType: "a", RoutingKey: "a.T", Position: "u:9",
		CommittedAt: now.Format(schema.TimeFormat)}, b.view.Position().Waiting)
	b.status.InFlight = 0
	require.Nil(t, b.view.Position().Waiting)
}

func TestLagIsTheAgeOfWhatIsNotConfirmed(t *testing.T) {
	t.Parallel()
	b := setup()
	b.status.Oldest = now.Add(-2 * time.Second)
	require.InDelta(t, 2, b.view.Position().Lag.Seconds, 0.001)
	b.status.Oldest, b.read.CommittedAt = time.Time{}, now.Add(-time.Minute)
	require.InDelta(t, 60, b.view.Position().Lag.Seconds, 0.001, "nothing in flight, but the server has more")
	b.status.ConfirmedAt = relay.Position{ServerUUID: "u", File: "binlog.000003", Pos: 50}
	require.Zero(t, b.view.Position().Lag.Seconds)
	b.status.Oldest = now.Add(time.Hour)
	require.Zero(t, b.view.Position().Lag.Seconds, "a clock that is ahead")
}

func TestReadyOnlyWhileDoingItsJob(t *testing.T) {
	t.Parallel()
	b := setup()
	for state, reason := range map[relay.State]relay.Reason{
		relay.Streaming: "", relay.Snapshot: "", relay.Repairing: "", relay.Standby: "", relay.Paused: "",
	} {
		b.status.State, b.status.Reason = state, reason
		answer := b.get(t, "/readyz")
		require.Equal(t, http.StatusOK, answer.Code, state)
		require.Contains(t, answer.Body.String(), `"state":"`+string(state)+`"`)
	}
	for state, reason := range map[relay.State]relay.Reason{
		relay.Starting: "", relay.Draining: "", relay.Standby: relay.SourceDown, relay.Stalled: relay.BrokerDown, relay.Halted: relay.BinlogPurged,
	} {
		b.status.State, b.status.Reason = state, reason
		answer := b.get(t, "/readyz")
		require.Equal(t, http.StatusServiceUnavailable, answer.Code, state)
		require.Contains(t, answer.Body.String(), string(state))
		require.Contains(t, answer.Body.String(), string(reason))
	}
	require.Equal(t, http.StatusOK, b.get(t, "/healthz").Code)
}

func TestMetricsHaveTheContractsNames(t *testing.T) {
	t.Parallel()
	text := setup().get(t, "/metrics").Body.String()
	for _, series := range []string{
		`tailbox_relay_state{state="streaming"} 1`, `tailbox_relay_state{state="halted"} 0`,
		"tailbox_relay_lag_seconds 0", "tailbox_relay_lag_bytes 250", "tailbox_relay_in_flight 0",
		`tailbox_relay_events_total{stage="read"} 10`, `tailbox_relay_events_total{stage="published"} 9`,
		`tailbox_relay_events_total{stage="confirmed"} 8`, `tailbox_relay_events_total{stage="returned"} 2`,
		`tailbox_relay_events_total{stage="nacked"} 1`, `tailbox_relay_events_total{stage="repaired"} 5`,
		"tailbox_relay_commit_to_confirm_seconds_count 0", "tailbox_relay_checkpoint_age_seconds 3", "tailbox_relay_runway_bytes 1100",
		`tailbox_relay_reconnects_total{peer="mysql"} 3`, `tailbox_relay_reconnects_total{peer="rabbitmq"} 4`,
		"tailbox_relay_deleted_total 6", "tailbox_relay_leader 1", "tailbox_relay_epoch 7",
	} {
		require.True(t, slices.Contains(strings.Split(text, "\n"), series), "%s in\n%s", series, text)
	}
}

func TestPositionTellsExactlyWhatARepairDid(t *testing.T) {
	t.Parallel()
	b := setup()
	require.Nil(t, b.view.Position().Repair, "there was none")
	b.repair = &binlog.Repair{Reason: relay.BinlogPurged, Detail: "why", Since: now.Add(-time.Hour), Rows: 3, Began: now,
		From: relay.Position{File: "binlog.000001", Pos: 4, GTIDSet: "u:1"}}
	want := console.Repair{Reason: relay.BinlogPurged, Detail: "why", Since: "2026-11-23T11:00:00.000000Z", Rows: 3,
		BeganAt: "2026-11-23T12:00:00.000000Z", From: console.Place{File: "binlog.000001", Pos: 4, GTIDSet: "u:1"}}
	require.Equal(t, &want, b.view.Position().Repair, "under way")
	b.repair.To, b.repair.Ended = relay.Position{File: "binlog.000007", Pos: 5, GTIDSet: "u:1-9"}, now.Add(time.Second)
	want.To, want.At = console.Place{File: "binlog.000007", Pos: 5, GTIDSet: "u:1-9"}, "2026-11-23T12:00:01.000000Z"
	require.Equal(t, &want, b.view.Position().Repair)
}

func TestAnUnknownCallIsAProblem(t *testing.T) {
	t.Parallel()
	answer := setup().get(t, "/nowhere")
	require.Equal(t, http.StatusNotFound, answer.Code)
	require.Contains(t, answer.Header().Get("Content-Type"), "application/problem+json")
}
