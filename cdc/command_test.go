package main

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"tailbox/deploy/ops"
)

func TestVersionNeedsNoSettings(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, command(t.Context(), []string{"version"}, &out))
	require.Contains(t, out.String(), "cdc ")
}

func TestRunIsTheDefaultAndNeedsTheSettings(t *testing.T) {
	t.Setenv("LOG_LEVEL", "loud")
	for _, args := range [][]string{nil, {"run"}, {"--window=0"}, {"run", "--window=0"}, {"--window=0", "run"}} {
		err := command(t.Context(), args, &bytes.Buffer{})
		require.ErrorIs(t, err, ops.ErrBadConfig, args)
		for _, want := range []string{"MYSQL_DSN is not set", "AMQP_URL is not set", `LOG_LEVEL: "loud"`} {
			require.ErrorContains(t, err, want, args)
		}
		if len(args) > 0 && args[0] != "run" || len(args) > 1 {
			require.ErrorContains(t, err, "WINDOW: 0", args)
		}
	}
	require.ErrorContains(t, command(t.Context(), []string{"walk"}, &bytes.Buffer{}), "walk")
}

func TestHelpListsSettingsAndCommands(t *testing.T) {
	var out bytes.Buffer
	require.NoError(t, command(t.Context(), []string{"-h"}, &out))
	require.Contains(t, out.String(), "$MYSQL_DSN")
	require.Contains(t, out.String(), "version")
}
