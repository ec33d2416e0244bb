package schema_test

import (
	"database/sql"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"tailbox/schema"
	"tailbox/schema/schematest"
)

func migrationFiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("sql/*.sql")
	require.NoError(t, err)
	return files
}

// TestAMigrationThatWasDoneButNotRecordedIsPassed: a process that is killed during its statement leaves it to the server, which
// finishes it.
func TestAMigrationThatWasDoneButNotRecordedIsPassed(t *testing.T) {
	t.Parallel()
	db := schematest.Open(t, schematest.EmptyDB(t))
	all := len(migrationFiles(t))
	applied, err := schema.Migrate(t.Context(), db)
	require.NoError(t, err)
	require.Equal(t, all, applied)
	want := tables(t, db)
	for last := range all {
		forget(t, db, last)
		applied, err := schema.Migrate(t.Context(), db)
		require.NoError(t, err, "from behind %d", last)
		require.Equal(t, all-last, applied)
		require.Equal(t, want, tables(t, db))
	}

	// What is missing is made, and any other error stays one.
	forget(t, db, 7)
	_, err = db.ExecContext(t.Context(), "DROP TABLE relay_audit")
	require.NoError(t, err)
	_, err = schema.Migrate(t.Context(), db)
	require.NoError(t, err)
	require.Equal(t, want, tables(t, db))
	forget(t, db, 7)
	_, err = db.ExecContext(t.Context(), "DROP TABLE outbox")
	require.NoError(t, err)
	_, err = schema.Migrate(t.Context(), db)
	require.ErrorContains(t, err, "1146", "no table to put the index on")
}

// TestAMigrationIsOneStatement: of two, nobody could tell which was done when the process was killed.
func TestAMigrationIsOneStatement(t *testing.T) {
	t.Parallel()
	comment := regexp.MustCompile(`--.*`)
	for _, name := range migrationFiles(t) {
		text, err := os.ReadFile(name)
		require.NoError(t, err)
		require.Equal(t, 1, strings.Count(comment.ReplaceAllString(string(text), ""), ";"), name)
	}
}

// forget deletes the record of all migrations behind one.
func forget(t *testing.T, db *sql.DB, last int) {
	t.Helper()
	_, err := db.ExecContext(t.Context(), "DELETE FROM goose_db_version WHERE version_id > ?", last)
	require.NoError(t, err)
}

// tables are the statements that would make the tables, by name.
func tables(t *testing.T, db *sql.DB) map[string]string {
	t.Helper()
	rows, err := db.QueryContext(t.Context(), "SELECT table_name FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name <> 'goose_db_version'")
	require.NoError(t, err)
	defer rows.Close()
	all := map[string]string{}
	for rows.Next() {
		var name string
		require.NoError(t, rows.Scan(&name))
		all[name] = ""
	}
	require.NoError(t, rows.Err())
	for name := range all {
		var text string
		require.NoError(t, db.QueryRowContext(t.Context(), "SHOW CREATE TABLE "+name).Scan(&name, &text))
		all[name] = text
	}
	return all
}
