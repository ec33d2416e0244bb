package ops_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"tailbox/deploy/ops"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type config struct {
	ops.Common
	Token ops.Secret    `env:"TOKEN" help:"A secret."`
	Size  int           `env:"SIZE" default:"3" help:"A number."`
	Wait  time.Duration `env:"WAIT" default:"1s" help:"A duration."`
	On    bool          `env:"ON" help:"A switch."`
}

func (c *config) Validate() error {
	return errors.Join(c.Common.Validate(), ops.Required("TOKEN", c.Token, "x"), ops.Positive("SIZE", c.Size))
}

func parse(args ...string) (*config, string, error) {
	var cfg config
	var out bytes.Buffer
	err := ops.Parse(ops.Service{Name: "test", Description: "A test.", HTTPAddr: ":1"}, &cfg, args, &out)
	return &cfg, out.String(), err
}

func TestEveryWrongSettingIsReportedAtOnce(t *testing.T) {
	t.Setenv("SIZE", "big")
	t.Setenv("WAIT", "long")
	t.Setenv("LOG_LEVEL", "loud")
	t.Setenv("ON", "maybe")
	_, _, err := parse()
	require.ErrorIs(t, err, ops.ErrBadConfig)
	for _, want := range []string{`SIZE: "big"`, `WAIT: "long"`, `LOG_LEVEL: "loud"`, "TOKEN is not set", "ON"} {
		require.ErrorContains(t, err, want)
	}
}

func TestFlagsWinOverTheEnvironmentAndThatOverDefaults(t *testing.T) {
	t.Setenv("TOKEN", "t")
	t.Setenv("SIZE", "5")
	cfg, _, err := parse("--wait=3s")
	require.NoError(t, err)
	require.Equal(t, 5, cfg.Size)
	require.Equal(t, 3*time.Second, cfg.Wait)
	require.Equal(t, ":1", cfg.HTTPAddr)
	cfg, _, err = parse("--size=7", "--on")
	require.NoError(t, err)
	require.Equal(t, 7, cfg.Size)
	require.True(t, cfg.On)
}

func TestAnUnknownFlagIsAnError(t *testing.T) {
	t.Setenv("TOKEN", "t")
	_, _, err := parse("--nonsense")
	require.ErrorIs(t, err, ops.ErrBadConfig)
	require.ErrorContains(t, err, "--nonsense")
}

func TestHelpPrintsVariablesAndDefaults(t *testing.T) {
	_, out, err := parse("-h")
	require.ErrorIs(t, err, ops.ErrHelp)
	require.Contains(t, out, "$SHUTDOWN_TIMEOUT")
	require.Contains(t, out, "--size=3")
}

func TestASecretCanComeFromAFileAndIsNeverPrinted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	require.NoError(t, os.WriteFile(path, []byte("s3cret\n"), 0o600))
	t.Setenv("TOKEN_FILE", path)
	t.Cleanup(func() { _ = os.Unsetenv("TOKEN") })
	cfg, _, err := parse()
	require.NoError(t, err)
	require.Equal(t, "s3cret", cfg.Token.Reveal())
	encoded, err := json.Marshal(cfg)
	require.NoError(t, err)
	require.NotContains(t, fmt.Sprintf("%v %+v %#v %s %s", *cfg, *cfg, *cfg, cfg.Token, encoded), "s3cret")

	t.Setenv("TOKEN", "")
	t.Setenv("TOKEN_FILE", path+"-missing")
	_, _, err = parse()
	require.ErrorContains(t, err, "TOKEN_FILE")
}

func TestParseDSNNeverQuotesWhatItWasGiven(t *testing.T) {
	for _, dsn := range []ops.Secret{"root:s3cret/db", "root:s3cret@tcp(h)", "root:s3cret@tcp(h)/"} {
		_, err := ops.ParseDSN("MYSQL_DSN", dsn, ops.TLSFiles{})
		require.ErrorIs(t, err, ops.ErrBadConfig, string(dsn))
		require.NotContains(t, err.Error(), "s3cret")
	}
}

func TestTheFirstActorToReturnStopsAll(t *testing.T) {
	boom := errors.New("boom")
	err := ops.Run(t.Context(),
		func(context.Context) error { return boom },
		func(ctx context.Context) error { <-ctx.Done(); return nil },
	)
	require.ErrorIs(t, err, boom)
	require.NoError(t, ops.Run(t.Context(),
		func(context.Context) error { return nil },
		func(ctx context.Context) error { <-ctx.Done(); return nil },
	))
}

func TestServeFinishesRunningRequestsBeforeItReturns(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	addr, answered := make(chan string, 1), make(chan error, 1)
	began := make(chan struct{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(began)
		<-ctx.Done() // the stop comes while the request runs
		w.WriteHeader(http.StatusNoContent)
	})
	done := make(chan error, 1)
	common := ops.Common{HTTPAddr: "127.0.0.1:0", ShutdownTimeout: 10 * time.Second}
	go func() { done <- ops.Serve(ctx, common, handler, func(a net.Addr) { addr <- a.String() }) }()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	go func() {
		request, err := http.NewRequest(http.MethodGet, "http://"+<-addr, nil)
		if err == nil {
			var answer *http.Response
			if answer, err = client.Do(request); err == nil {
				err = answer.Body.Close()
			}
		}
		answered <- err
	}()
	<-began
	cancel()
	require.NoError(t, <-answered)
	require.NoError(t, <-done)
}
