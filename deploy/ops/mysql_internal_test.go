package ops

import (
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
