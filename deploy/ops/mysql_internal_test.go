package ops

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestAMigrationMayTakeAsLongAsItNeeds(t *testing.T) {
	t.Parallel()
	for dsn, want := range map[Secret]time.Duration{"u@tcp(h)/d": 0, "u@tcp(h)/d?readTimeout=7s": 7 * time.Second} {
		cfg, err := migratorConfig("MIGRATE_DSN", dsn, TLSFiles{})
		require.NoError(t, err)
		require.Equal(t, want, cfg.ReadTimeout)
	}
}

func TestSessionsThatAskForNothingAreEnded(t *testing.T) {
	t.Parallel()
	for dsn, want := range map[Secret]map[time.Duration]string{
		"u@tcp(h)/d":                 {100 * time.Millisecond: "1", 2900 * time.Millisecond: "2", time.Hour: "20"},
		"u@tcp(h)/d?wait_timeout=60": {time.Second: "60"},
	} {
		for limit, seconds := range want {
			cfg, err := ParseDSN("MYSQL_DSN", dsn, TLSFiles{})
			require.NoError(t, err)
			holds, err := EndIdle(cfg, limit)
			require.NoError(t, err)
			require.Equal(t, seconds, cfg.Params["wait_timeout"])
			require.Equal(t, seconds, strconv.Itoa(int(holds.Seconds())))
		}
	}
	for _, bad := range []Secret{"u@tcp(h)/d?wait_timeout=0", "u@tcp(h)/d?wait_timeout=1h"} {
		cfg, err := ParseDSN("MYSQL_DSN", bad, TLSFiles{})
		require.NoError(t, err)
		_, err = OpenMySQL(cfg, 1)
		require.ErrorIs(t, err, ErrBadConfig)
		require.ErrorContains(t, err, "wait_timeout")
	}
}
