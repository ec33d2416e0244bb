package consume_test

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"tailbox/deploy/ops"
	"tailbox/schema/topology"
	"tailbox/worker/consume"
)

func TestNewTellsAllThatIsWrongAndNoSecret(t *testing.T) {
	t.Parallel()
	_, err := consume.New(nil, "amqp://tailbox:hunter2@host:port/", topology.Consumer{}, nil, consume.Config{
		Name: strings.Repeat("x", 65), Concurrency: -1, Batch: -1, Prefetch: 2001, MaxAttempts: -1, InboxRetention: time.Hour, HandleTimeout: -1, GapWait: -1, ShutdownTimeout: -1,
	})
	require.ErrorIs(t, err, ops.ErrBadConfig)
	for _, part := range []string{"AMQP_URL", "exchange", "64 characters", "CONCURRENCY", "BATCH", "PREFETCH", "MAX_ATTEMPTS", "INBOX_RETENTION: 1h0m0s is too short: it has to be 24h0m0s", "handle timeout", "gap wait", "SHUTDOWN_TIMEOUT"} {
		require.ErrorContains(t, err, part)
	}
	require.NotContains(t, err.Error(), "hunter2")
}

func TestMetricsKeepTheirNames(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewPedanticRegistry()
	w, err := consume.New(nil, "amqp://localhost", topology.Customers("customers"), nil, consume.Config{Metrics: registry})
	require.NoError(t, err)
	count, err := testutil.GatherAndCount(registry, "tailbox_worker_messages_total", "tailbox_worker_handle_seconds", "tailbox_worker_end_to_end_seconds")
	require.NoError(t, err)
	require.Equal(t, 5+2, count, "all outcomes are shown from the start")
	require.Equal(t, consume.StateStarting, w.Stats().State)
	require.Equal(t, []string{consume.NotConnected, consume.NotConsuming, consume.NoDatabase}, w.Unready())
	require.Equal(t, map[string]uint64{"applied": 0, "duplicate": 0, "retried": 0, "dead": 0, "dropped": 0}, w.Stats().Messages)
}

func TestInboxRemembersLongerThanRetryQueuesHold(t *testing.T) {
	t.Parallel()
	const attempts = 1000
	held := 995*10*time.Minute + 2*time.Minute + 36*time.Second
	for retention, refused := range map[time.Duration]bool{
		held: true, held + time.Hour - 1: true, held + time.Hour: false, consume.KeepInbox: false, 0: false,
	} {
		err := consume.Check("amqp://localhost", topology.Customers("customers"), consume.Config{MaxAttempts: attempts, InboxRetention: retention})
		require.Equal(t, refused, err != nil, "%v: %v", retention, err)
	}
}
