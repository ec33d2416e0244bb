package ops_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"tailbox/deploy/ops"
	"tailbox/deploy/stack"
)

func TestWhatIsWrongWithAddressesIsToldAtOnceAndNoPasswordIsShown(t *testing.T) {
	t.Parallel()
	_, err := ops.ParseBrokers("amqp://u:s3cret@h1/v,amqp://u:s3cret@h2:70000/v,http://u:s3cret@h/v, amqps://u:s3cret@h/v,amqp://u:s3cret@h/w,"+
		"amqp://u:s3#cret@h/v,amqp://u:s3cret@/v,amqp://u:s3cret@h1,h2/v,amqp://u:s3cret@h/v?heartbeat=0,amqp://u:s3cret@h/v,", ops.TLSFiles{CA: "/missing", Cert: "/c"})
	for _, want := range []string{
		"AMQP_TLS_CA: open /missing", "AMQP_TLS_CERT is set and AMQP_TLS_KEY is not", "AMQP_URL does not say amqps://",
		"address 2: its port", "address 3: it begins with neither", "address 4: some addresses say amqps:// and some amqp://",
		"address 5: its vhost is another one", "address 6: it is not of the form", "address 7: it names no host", "address 8: it has a comma",
		"address 9: it has parameters", "address 10: it has a comma",
	} {
		require.ErrorContains(t, err, want)
	}
	require.NotContains(t, err.Error(), "s3")
	require.NotContains(t, err.Error(), "address 1:")
}

func TestSessionsBeginWithOneAddressAfterTheOtherAndTryAll(t *testing.T) {
	t.Parallel()
	var servers []string
	for range 3 {
		servers = append(servers, accept(t, nil))
	}
	dead := "127.0.0.1:1"
	all := []string{servers[0], dead, servers[1], servers[2]}
	b, err := ops.ParseBrokers(ops.Secret("amqp://u:a,b@"+strings.Join(all, "/v,amqp://u:a,b@")+"/v"), ops.TLSFiles{})
	require.NoError(t, err)
	for session, first := range []string{servers[0], servers[1], servers[1], servers[2], servers[0]} { // the second is not there
		url, err := connect(t, b, nil)
		require.NoError(t, err)
		require.Equal(t, "amqp://u:a,b@"+first+"/v", url, "session %d", session)
	}
	refused := errors.New("no")
	_, err = connect(t, b, refused)
	require.ErrorIs(t, err, refused)
	for _, addr := range all {
		require.ErrorContains(t, err, addr)
	}
	require.NotContains(t, err.Error(), "a,b")
}

func TestOnlyTheRightServerAndTheRightClientMeet(t *testing.T) {
	t.Parallel()
	ours, others := authority(t), authority(t)
	addr := accept(t, issue(t, ours, "localhost"))
	host := "localhost" + addr[strings.LastIndex(addr, ":"):]
	files := save(t, issue(t, ours))
	stranger := save(t, issue(t, others))
	for _, c := range []struct {
		name, addr string
		files      ops.TLSFiles
		wrong      string
	}{
		{"all is right", host, files, ""},
		{"the server's authority is not ours", host, ops.TLSFiles{CA: stranger.CA, Cert: files.Cert, Key: files.Key}, "unknown authority"},
		{"the server's authority is not the system's", host, ops.TLSFiles{Cert: files.Cert, Key: files.Key}, "unknown authority"},
		{"the name is not the server's", addr, files, "127.0.0.1"},
		{"no certificate", host, ops.TLSFiles{CA: files.CA}, "certificate required"},
		{"a certificate of another authority", host, ops.TLSFiles{CA: files.CA, Cert: stranger.Cert, Key: stranger.Key}, "certificate"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			b, err := ops.ParseBrokers(ops.Secret("amqps://u:s3cret@"+c.addr+"/v"), c.files)
			require.NoError(t, err)
			url, err := connect(t, b, nil)
			if c.wrong == "" {
				require.NoError(t, err)
				require.Equal(t, "amqp://u:s3cret@"+c.addr+"/v", url)
				return
			}
			require.ErrorContains(t, err, c.wrong)
			require.NotContains(t, err.Error(), "s3cret")
		})
	}
}

func TestARenewedCertificateIsUsedFromTheNextConnectionOn(t *testing.T) {
	t.Parallel()
	ours, others := authority(t), authority(t)
	addr := accept(t, issue(t, ours, "127.0.0.1"))
	folder := t.TempDir()
	files := ops.TLSFiles{CA: filepath.Join(folder, "ca.pem"), Cert: filepath.Join(folder, "cert.pem"), Key: filepath.Join(folder, "key.pem")}
	stranger := issue(t, others)
	stranger.CA = issue(t, ours).CA
	require.NoError(t, stranger.Save(folder))
	b, err := ops.ParseBrokers(ops.Secret("amqps://"+addr), files)
	require.NoError(t, err)
	_, err = connect(t, b, nil)
	require.Error(t, err)
	require.NoError(t, issue(t, ours).Save(folder))
	_, err = connect(t, b, nil)
	require.NoError(t, err)
}

func TestFilesThatAreNoCertificatesAreNamed(t *testing.T) {
	t.Parallel()
	a, b := save(t, issue(t, authority(t))), save(t, issue(t, authority(t)))
	_, err := ops.ParseBrokers("amqps://h", ops.TLSFiles{CA: a.Key, Cert: a.Cert, Key: b.Key})
	require.ErrorContains(t, err, "AMQP_TLS_CA: "+a.Key+" holds no certificate in PEM")
	require.ErrorContains(t, err, "AMQP_TLS_CERT and AMQP_TLS_KEY: ")
	_, err = ops.ParseDSN("MYSQL_DSN", "u:s3cret@tcp(h)/d", ops.TLSFiles{CA: a.CA, Key: a.Key})
	require.ErrorIs(t, err, ops.ErrBadConfig)
	require.ErrorContains(t, err, "MYSQL_TLS_KEY is set and MYSQL_TLS_CERT is not")
	require.ErrorContains(t, err, "MYSQL_DSN does not say tls=true")
	cfg, err := ops.ParseDSN("MYSQL_DSN", "u:s3cret@tcp(h)/d?tls=true", a)
	require.NoError(t, err)
	require.Equal(t, "h", cfg.TLS.ServerName)
	require.NotNil(t, cfg.TLS.RootCAs)
	require.NotNil(t, cfg.TLS.GetClientCertificate)
}

// connect opens a session as far as the first byte, or refuses every link.
func connect(t *testing.T, b *ops.Brokers, refuse error) (url string, err error) {
	t.Helper()
	err = b.Turn().Connect(t.Context(), func(_ context.Context, link ops.BrokerLink) error {
		url = link.URL.Reveal()
		if refuse != nil {
			return refuse
		}
		defer link.Socket.Close()
		if err := link.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
			return err
		}
		_, err := link.Read(make([]byte, 1)) // with TLS 1.3 the server says here whether it takes the client
		return err
	})
	return url, err
}

// accept is a server that says one byte to whom it lets in; with TLS it lets in whom its authority knows.
func accept(t *testing.T, own *stack.TLS) (addr string) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr = listener.Addr().String()
	if own != nil {
		pair, err := tls.X509KeyPair(own.Cert, own.Key)
		require.NoError(t, err)
		clients := x509.NewCertPool()
		require.True(t, clients.AppendCertsFromPEM(own.CA))
		listener = tls.NewListener(listener, &tls.Config{
			MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}, ClientCAs: clients, ClientAuth: tls.RequireAndVerifyClientCert,
		})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Write([]byte{'x'}) // who is not let in gets none
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() {
		require.NoError(t, listener.Close())
		<-done
	})
	return addr
}

func authority(t *testing.T) *stack.Authority {
	t.Helper()
	a, err := stack.NewAuthority()
	require.NoError(t, err)
	return a
}

func issue(t *testing.T, a *stack.Authority, hosts ...string) *stack.TLS {
	t.Helper()
	made, err := a.Issue(hosts...)
	require.NoError(t, err)
	return made
}

// save writes the files and names them as settings do.
func save(t *testing.T, made *stack.TLS) ops.TLSFiles {
	t.Helper()
	folder := t.TempDir()
	require.NoError(t, made.Save(folder))
	_, err := os.Stat(folder)
	require.NoError(t, err)
	return ops.TLSFiles{CA: filepath.Join(folder, "ca.pem"), Cert: filepath.Join(folder, "cert.pem"), Key: filepath.Join(folder, "key.pem")}
}
