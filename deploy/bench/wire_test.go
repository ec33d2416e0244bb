package bench_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/cdc/publish"
	"tailbox/cdc/relay"
	"tailbox/deploy/ops"
	"tailbox/deploy/stack"
)

// BenchmarkWire compares a plain amqp091-go connection, which writes each message by itself, with the publishing session of the
// relay, whose connection gathers what comes during a write: both from memory, in processes of their own, on one broker,
// interleaved, medians. With TLS, gathering also makes few large records of many small ones.
func BenchmarkWire(b *testing.B) {
	const messages, pairs = 60000, 5
	broker, folder := startTLSBroker(b)
	for _, encrypted := range []bool{false, true} {
		name, url, env := "plain", broker.URL("/"), []string(nil)
		if encrypted {
			name, url, env = "tls", broker.TLSURL("localhost", "/"), []string{envTLS + "=" + folder}
		}
		b.Run(name, func(b *testing.B) {
			ch := bindQueue(b, broker.URL("/"), "quorum")
			var plain, gathered []figures
			for range pairs {
				plain = append(plain, runPublisher(b, url, messages, env...))
				_, err := ch.QueuePurge("bench", false)
				require.NoError(b, err)
				gathered = append(gathered, runPublisher(b, url, messages, append(env, envGathered+"=1")...))
				_, err = ch.QueuePurge("bench", false)
				require.NoError(b, err)
			}
			p, g := median(plain), median(gathered)
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(p.PerSecond, "plain-msg/s")
			b.ReportMetric(g.PerSecond, "gathered-msg/s")
			b.ReportMetric(g.PerSecond/p.PerSecond, "ratio")
			b.ReportMetric(p.Writes, "plain-writes/msg")
			b.ReportMetric(g.Writes, "gathered-writes/msg")
			b.ReportMetric(float64(p.CPU.Nanoseconds())/1000, "plain-cpu-µs/msg")
			b.ReportMetric(float64(g.CPU.Nanoseconds())/1000, "gathered-cpu-µs/msg")
		})
	}
}

// startTLSBroker starts a broker that speaks TLS, too, and returns the folder with a client's files.
func startTLSBroker(b *testing.B) (broker *stack.RabbitMQ, folder string) {
	b.Helper()
	folder = b.TempDir()
	server, err := stack.Certify(folder, "localhost")
	require.NoError(b, err)
	set, err := stack.SetFromEnv()
	require.NoError(b, err)
	broker, err = stack.NewRabbitMQ(b.Context(), stack.Config{Dir: b.TempDir(), Set: set, TLS: server, Log: os.Stderr})
	require.NoError(b, err)
	require.NoError(b, broker.Start(b.Context()))
	b.Cleanup(func() { require.NoError(b, broker.Stop(context.Background())) })
	return broker, folder
}

func tlsFiles() (files ops.TLSFiles) {
	if folder := os.Getenv(envTLS); folder != "" {
		files = ops.TLSFiles{CA: filepath.Join(folder, "ca.pem"), Cert: filepath.Join(folder, "cert.pem"), Key: filepath.Join(folder, "key.pem")}
	}
	return files
}

// plainTLS is what the plain publisher's library is given.
func plainTLS() (*tls.Config, error) {
	files := tlsFiles()
	if files.CA == "" {
		return nil, nil
	}
	ca, err := os.ReadFile(files.CA)
	if err != nil {
		return nil, err
	}
	pair, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	if err != nil {
		return nil, err
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool(), Certificates: []tls.Certificate{pair}}
	config.RootCAs.AppendCertsFromPEM(ca)
	return config, nil
}

// publishGathered sends the same messages as publishPlainly through a session as the relay opens it, and hands over what there
// is room for whenever something is settled, as the relay does. It prints its figures as JSON.
func publishGathered(url string, count int) error {
	exchange, err := publish.ParseTemplate(benchExchange)
	if err != nil {
		return err
	}
	key, err := publish.ParseTemplate("{aggregate_type}.{type}")
	if err != nil {
		return err
	}
	publisher, err := publish.New(publish.Config{URL: ops.Secret(url), TLS: tlsFiles(), Exchange: exchange, RoutingKey: key, Window: benchWindow})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	session, err := publisher.Open(ctx)
	if err != nil {
		return err
	}
	meter := meter{middle: middleOf(count)}
	if err := feed(session, uint64(count), &meter); err != nil {
		return errors.Join(err, session.Close(ctx))
	}
	if err := session.Close(ctx); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(meter.figures)
}

func feed(session relay.Session, count uint64, meter *meter) error {
	for sent, confirmed := uint64(0), uint64(0); confirmed < count; {
		var rows []relay.Row
		for ; sent < min(count, confirmed+uint64(benchWindow)); sent++ {
			rows = append(rows, relay.Row{Seq: sent + 1, Event: benchEvent(int(sent)), Position: "0-1-" + strconv.FormatUint(sent, 10)})
		}
		if len(rows) > 0 {
			session.Publish(rows)
		}
		o, open := <-session.Outcomes()
		if !open || o.Kind != relay.Confirmed {
			return fmt.Errorf("outcome %d of message %d", o.Kind, o.Seq)
		}
		confirmed = o.Seq
		if err := meter.confirmed(int(confirmed)); err != nil {
			return err
		}
	}
	return nil
}
