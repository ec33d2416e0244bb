package bench_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/require"

	"tailbox/deploy/mysql"
	"tailbox/deploy/ops"
	"tailbox/deploy/services"
	"tailbox/deploy/stack"
	"tailbox/schema"
	"tailbox/schema/schematest"
	"tailbox/schema/topology"
	"tailbox/worker/consume"
	"tailbox/worker/effect"
)

// BenchmarkWorkerEffects measures how many effects per second the worker makes of a backlog, with a transaction for each
// event and with up to 64 events in one. Both take the same events from queues of their own, on the same servers.
func BenchmarkWorkerEffects(b *testing.B) {
	const customers, versions = 500, 40
	servers := startServers(b)
	dsn, err := ops.ParseDSN("MYSQL_DSN", ops.Secret(servers.MySQL.DSN(mysql.Database)), ops.TLSFiles{})
	require.NoError(b, err)
	dsn.InterpolateParams = true
	backlog := make([]schema.Event, 0, customers*versions)
	for range customers {
		backlog = append(backlog, schematest.Event())
	}
	for version := uint64(2); version <= versions; version++ {
		for _, first := range backlog[:customers] {
			backlog = append(backlog, schematest.Event(func(e *schema.Event) {
				e.AggregateID, e.AggregateVersion, e.Type = first.AggregateID, version, effect.CustomerUpdated
			}))
		}
	}

	for _, batch := range []int{1, 64} {
		b.Run(fmt.Sprintf("batch=%d", batch), func(b *testing.B) {
			for range b.N {
				db, err := ops.OpenMySQL(dsn, consume.DefaultConcurrency+1)
				require.NoError(b, err)
				took := work(b, servers, db, batch, backlog)
				require.NoError(b, db.Close())
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(float64(len(backlog))/took.Seconds(), "effects/s")
			}
		})
	}
}

// startServers starts servers of the set that SERVERS names, with the tables and the users in them, for one benchmark.
func startServers(b *testing.B) *stack.Stack {
	b.Helper()
	set, err := stack.SetFromEnv()
	require.NoError(b, err)
	servers, err := stack.New(b.Context(), stack.Config{Dir: b.TempDir(), Set: set, Log: os.Stderr})
	require.NoError(b, err)
	require.NoError(b, servers.Start(b.Context()))
	b.Cleanup(func() { require.NoError(b, servers.Stop(context.Background())) })
	require.NoError(b, services.Prepare(b.Context(), servers.MySQL))
	return servers
}

// work lets a worker apply a backlog to empty tables and tells how long it took, from the first message on.
func work(b *testing.B, servers *stack.Stack, db *sql.DB, batch int, backlog []schema.Event) time.Duration {
	b.Helper()
	for _, table := range []string{"inbox", "customer_profiles"} {
		_, err := db.ExecContext(b.Context(), "DELETE FROM "+table)
		require.NoError(b, err)
	}
	vhost := "bench" + schema.NewID()
	require.NoError(b, servers.Rabbit.CreateVhost(b.Context(), vhost))
	queue := topology.Customers(topology.CustomersQueue)
	publishAll(b, servers.Rabbit.URL(vhost), queue, backlog)

	worker, err := consume.New(db, ops.Secret(servers.Rabbit.URL(vhost)), queue, effect.Handlers(), consume.Config{Batch: batch})
	require.NoError(b, err)
	ctx, stop := context.WithCancel(b.Context())
	ended := make(chan error, 1)
	applied := func() uint64 { return worker.Stats().Messages["applied"] }
	go func() { ended <- worker.Run(ctx) }()
	waitUntil(b, func() bool { return applied() > 0 })
	began, before := time.Now(), applied()
	waitUntil(b, func() bool { return applied() == uint64(len(backlog)) })
	took := time.Since(began) * time.Duration(len(backlog)) / time.Duration(uint64(len(backlog))-before)
	stop()
	require.NoError(b, <-ended)
	require.NoError(b, servers.Rabbit.DeleteVhost(context.Background(), vhost))
	return took
}

func waitUntil(b *testing.B, holds func() bool) {
	b.Helper()
	require.Eventually(b, holds, 5*time.Minute, time.Millisecond)
}

func publishAll(b *testing.B, url string, queue topology.Consumer, events []schema.Event) {
	b.Helper()
	conn, err := amqp.Dial(url)
	require.NoError(b, err)
	defer func() { require.NoError(b, conn.Close()) }()
	ch, err := conn.Channel()
	require.NoError(b, err)
	require.NoError(b, errors.Join(ch.Confirm(false), queue.Declare(ch)))
	var last []*amqp.DeferredConfirmation
	for i, e := range events {
		confirm, err := ch.PublishWithDeferredConfirm(queue.Exchange, "customer."+e.Type, true, false, amqp.Publishing{
			MessageId: e.ID, Type: e.Type, DeliveryMode: amqp.Persistent, Body: e.Payload, Headers: amqp.Table{
				schema.HeaderAggregateType: e.AggregateType, schema.HeaderAggregateID: e.AggregateID,
				schema.HeaderAggregateVersion: int64(e.AggregateVersion), schema.HeaderCreatedAt: e.CreatedAt.Format(schema.TimeFormat),
			},
		})
		require.NoError(b, err)
		if last = append(last, confirm); len(last) == 1000 || i == len(events)-1 {
			for _, confirm := range last {
				require.True(b, confirm.Wait())
			}
			last = nil
		}
	}
}
