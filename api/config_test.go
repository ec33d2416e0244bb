package main

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"tailbox/deploy/ops"
)

func parse(args ...string) (Config, error) {
	var cfg Config
	err := ops.Parse(service, &cfg, args, io.Discard)
	return cfg, err
}

func TestDefaultsAreThoseThatArePromised(t *testing.T) {
	t.Parallel()
	cfg, err := parse("--mysql-dsn=root:s3cret@tcp(localhost)/tailbox")
	require.NoError(t, err)
	require.Equal(t, ":3000", cfg.HTTPAddr)
	require.False(t, cfg.Migrate)
	dsn, variable := cfg.owner()
	require.Equal(t, cfg.MySQLDSN, dsn)
	require.Equal(t, "MYSQL_DSN", variable)
	require.NotContains(t, fmt.Sprintf("%v %+v %#v", cfg, cfg, cfg), "s3cret")
}

func TestEveryWrongSettingIsNamedOnceAndNoSecretIsShown(t *testing.T) {
	t.Parallel()
	_, err := parse("--mysql-dsn=root:s3cret/tailbox", "--migrate-dsn=owner:s3cret", "--migrate=maybe", "--log-level=loud", "--shutdown-timeout=soon")
	require.ErrorIs(t, err, ops.ErrBadConfig)
	for _, name := range []string{"MYSQL_DSN is", "MIGRATE_DSN is", "MIGRATE:", "LOG_LEVEL:", "SHUTDOWN_TIMEOUT: \"soon\""} {
		require.Equal(t, 1, strings.Count(err.Error(), name), "%s\n%s", name, err)
	}
	require.NotContains(t, err.Error(), "s3cret")
}

func TestMigratingIsSwitchedWithOrWithoutAValue(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		flag string
		on   bool
	}{{"--migrate", true}, {"--migrate=true", true}, {"--migrate=1", true}, {"--migrate=false", false}, {"--migrate=0", false}} {
		cfg, err := parse("--mysql-dsn=root@tcp(localhost)/tailbox", c.flag)
		require.NoError(t, err)
		require.Equal(t, c.on, cfg.Migrate, c.flag)
	}
}

func TestMissingDatabaseIsNamed(t *testing.T) {
	t.Parallel()
	_, err := parse()
	require.ErrorContains(t, err, "MYSQL_DSN is not set")
	_, err = parse("--mysql-dsn=x", "--unknown")
	require.ErrorContains(t, err, "unknown flag --unknown")
}
