package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"tailbox/deploy/openapitest"
	"tailbox/deploy/ops"
	"tailbox/schema"
	"tailbox/schema/schematest"
	"tailbox/schema/topology"
	"tailbox/worker/consume"
)

func TestMain(m *testing.M) { schematest.Main(m) }

func TestBadConfigurationIsToldAllAtOnceWithoutSecrets(t *testing.T) {
	t.Parallel()
	err := run(t.Context(), []string{"--mysql-dsn=tailbox:hunter2@nowhere", "--amqp-url=amqp://tailbox:hunter2@host:port",
		"--concurrency=0", "--batch=0", "--prefetch=many", "--max-attempts=-1", "--inbox-retention=never", "--log-level=loud"})
	require.ErrorIs(t, err, ops.ErrBadConfig)
	for _, name := range []string{"MYSQL_DSN", "AMQP_URL", "CONCURRENCY", "BATCH", "PREFETCH", "MAX_ATTEMPTS", "INBOX_RETENTION", "LOG_LEVEL"} {
		require.ErrorContains(t, err, name)
	}
	require.NotContains(t, err.Error(), "hunter2")
	require.ErrorIs(t, run(t.Context(), []string{"--no-such-flag"}), ops.ErrBadConfig)
}

// service is a worker with its HTTP server.
type service struct {
	url   string
	spec  *openapitest.Spec // each answer is held to it
	lines *observer.ObservedLogs
	stop  func() error
}

func start(t *testing.T, change func(*Config)) service {
	t.Helper()
	var cfg Config
	require.NoError(t, ops.Parse(ops.Service{Name: "worker", HTTPAddr: "127.0.0.1:0"}, &cfg,
		[]string{"--mysql-dsn=root@tcp(127.0.0.1:1)/tailbox", "--amqp-url=amqp://127.0.0.1:1/"}, os.Stdout))
	change(&cfg)
	log, lines := observer.New(zap.InfoLevel)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- serve(ctx, cfg, zap.New(log)) }()

	var address string
	eventually(t, func() bool {
		for _, line := range lines.FilterMessage("serving HTTP").All() {
			address = line.ContextMap()["address"].(string)
		}
		return address != ""
	})
	stopped, result := false, error(nil)
	stop := func() error {
		if cancel(); !stopped {
			stopped, result = true, <-ended
		}
		return result
	}
	t.Cleanup(func() { require.NoError(t, stop()) })
	return service{"http://" + address, openapitest.Read(t, description), lines, stop}
}

func eventually(t *testing.T, holds func() bool) {
	t.Helper()
	require.Eventually(t, holds, time.Minute, 10*time.Millisecond)
}

func (s service) get(t *testing.T, path string) (int, string) {
	t.Helper()
	return s.call(t, http.MethodGet, path, "", "")
}

// call makes a call and holds its answer to the description.
func (s service) call(t *testing.T, method, path, authorization, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.url+path, strings.NewReader(body))
	require.NoError(t, err)
	req.Close = true
	req.Header.Set("Authorization", authorization)
	answer, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	defer func() { require.NoError(t, answer.Body.Close()) }()
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	s.spec.Hold(t, req, openapitest.Answer{Status: answer.StatusCode, Header: answer.Header, Body: string(text)})
	return answer.StatusCode, string(text)
}

func TestServiceMigratesConsumesAndTellsAboutIt(t *testing.T) {
	t.Parallel()
	url := schematest.Vhost(t)
	s := start(t, func(c *Config) {
		c.MySQLDSN, c.AMQPURL, c.Migrate = ops.Secret(schematest.EmptyDB(t)), ops.Secret(url), true
	})
	eventually(t, func() bool { status, _ := s.get(t, "/readyz"); return status == http.StatusOK })
	event := schematest.Event()
	publish(t, url, event)

	var stats consume.Stats
	eventually(t, func() bool {
		status, body := s.get(t, "/stats")
		require.Equal(t, http.StatusOK, status)
		require.NoError(t, json.Unmarshal([]byte(body), &stats))
		return stats.Messages["applied"] == 1 && stats.InFlight == 0
	})
	require.Equal(t, "customers", stats.Consumer)
	require.Equal(t, consume.StateConsuming, stats.State)
	at, err := time.Parse(schema.TimeFormat, *stats.LastEventAt)
	require.NoError(t, err)
	require.WithinDuration(t, time.Now(), at, time.Minute)

	_, metrics := s.get(t, "/metrics")
	for _, line := range []string{`tailbox_worker_messages_total{outcome="applied"} 1`, "tailbox_worker_handle_seconds_count 1",
		"tailbox_worker_end_to_end_seconds_count 1", "go_goroutines"} {
		require.Contains(t, metrics, line)
	}
	handling := s.lines.FilterMessage("handling").All()
	require.Len(t, handling, 1)
	require.Equal(t, map[string]any{"event_id": event.ID, "type": event.Type, "aggregate_id": event.AggregateID,
		"aggregate_version": uint64(1)}, handling[0].ContextMap())
	require.NoError(t, s.stop())
}

func publish(t *testing.T, url string, e schema.Event) {
	t.Helper()
	conn, err := amqp.Dial(url)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close()) }()
	ch, err := conn.Channel()
	require.NoError(t, err)
	require.NoError(t, ch.Publish(topology.Exchange, "customer."+e.Type, true, false, amqp.Publishing{
		MessageId: e.ID, Type: e.Type, Body: e.Payload, Headers: amqp.Table{
			schema.HeaderAggregateType: e.AggregateType, schema.HeaderAggregateID: e.AggregateID,
			schema.HeaderAggregateVersion: int64(e.AggregateVersion), schema.HeaderCreatedAt: e.CreatedAt.Format(schema.TimeFormat),
		},
	}))
}

func TestUnreachableServersAreNoReasonToEnd(t *testing.T) {
	t.Parallel()
	for name, migrate := range map[string]bool{"consuming": false, "migrating": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, func(c *Config) { c.Migrate = migrate })
			status, body := s.get(t, "/readyz")
			require.Equal(t, http.StatusServiceUnavailable, status)
			for _, reason := range []string{consume.NotConnected, consume.NotConsuming, consume.NoDatabase} {
				require.Contains(t, body, reason)
			}
			status, _ = s.get(t, "/healthz")
			require.Equal(t, http.StatusOK, status)
			require.NoError(t, s.stop())
		})
	}
}
