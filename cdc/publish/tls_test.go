package publish_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"tailbox/cdc/publish"
	"tailbox/deploy/ops"
	"tailbox/deploy/stack"
)

// TestABrokerThatDemandsACertificateIsReachedThroughAnyOfItsAddresses: a vhost of a broker that speaks TLS, behind an address
// where nothing answers; and what must not work.
func TestABrokerThatDemandsACertificateIsReachedThroughAnyOfItsAddresses(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	server, err := stack.Certify(folder, "localhost")
	require.NoError(t, err)
	files := ops.TLSFiles{CA: filepath.Join(folder, "ca.pem"), Cert: filepath.Join(folder, "cert.pem"), Key: filepath.Join(folder, "key.pem")}

	set, err := stack.SetFromEnv()
	require.NoError(t, err)
	broker, err := stack.NewRabbitMQ(t.Context(), stack.Config{Dir: t.TempDir(), Set: set, TLS: server, Log: os.Stderr})
	require.NoError(t, err)
	require.NoError(t, broker.Start(t.Context()))
	t.Cleanup(func() { _ = broker.Kill() })
	require.NoError(t, broker.CreateVhost(t.Context(), "of/its own"))

	b := &bundle{t: t, name: "tls"}
	url := broker.TLSURL("localhost", "of/its own")
	b.configure(publish.Config{URL: ops.Secret("amqps://guest:guest@localhost:1/of%2Fits%20own," + url), TLS: files, Park: true})
	for range 2 { // the second session begins with the other address
		s := b.open()
		batch := rows(1, 300)
		for i := range batch {
			batch[i].Parked = true
		}
		s.Publish(batch[:100])
		b.confirmed(s, 100)
	}

	for wrong, cfg := range map[string]publish.Config{
		"127.0.0.1 because it doesn't contain": {URL: ops.Secret(broker.TLSURL("127.0.0.1", "/")), TLS: files},
		"unknown authority":                    {URL: ops.Secret(url), TLS: ops.TLSFiles{Cert: files.Cert, Key: files.Key}},
		"certificate required":                 {URL: ops.Secret(url), TLS: ops.TLSFiles{CA: files.CA}},
		"vhost nobody not found":               {URL: ops.Secret(broker.TLSURL("localhost", "nobody")), TLS: files},
	} {
		b.configure(cfg)
		_, err := b.pub.Open(t.Context())
		require.ErrorContains(t, err, wrong)
	}
}
