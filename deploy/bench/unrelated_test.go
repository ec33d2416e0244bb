package bench_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	driver "github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"tailbox/cdc/binlog"
	"tailbox/cdc/relay"
	"tailbox/deploy/mysql"
	"tailbox/deploy/services"
	"tailbox/deploy/stack"
	"tailbox/schema"
	"tailbox/schema/schematest"
)

const (
	unrelatedTransactions = 60000
	unrelatedRows         = 20 // in each, of about 300 bytes
	unrelatedPairs        = 5
)

// BenchmarkUnrelated reads a binlog of which 99 % are other tables' rows, as the relay does, beside mysqlbinlog
// --read-from-remote-server --raw over the same files, to /dev/null: five pairs, interleaved, medians. On a MariaDB that is
// mariadb-binlog, of the package mariadb-client.
func BenchmarkUnrelated(b *testing.B) {
	defer debug.SetGCPercent(debug.SetGCPercent(400)) // as cdc runs
	server := fillUnrelated(b)
	db := schematest.Open(b, server.DSN(mysql.Database))
	files, size := binlogFiles(b, db)
	tool := binlogTool(b, server)

	var ours, theirs []float64 // bytes per second
	last := lastEvent(b, db)
	for range unrelatedPairs {
		theirs = append(theirs, float64(size)/runTool(b, tool, server, files).Seconds())
		ours = append(ours, float64(size)/readAll(b, server, db, last).Seconds())
	}
	slices.Sort(ours)
	slices.Sort(theirs)
	o, t := ours[len(ours)/2], theirs[len(theirs)/2]
	rows := float64(unrelatedTransactions * unrelatedRows * 101 / 100)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(size)/1e6, "MB")
	b.ReportMetric(o/1e6, "relay-MB/s")
	b.ReportMetric(rows*o/float64(size), "relay-rows/s")
	b.ReportMetric(t/1e6, "tool-MB/s")
	b.ReportMetric(o/t, "ratio")
}

// fillUnrelated is a server whose binlog has a transaction with outbox rows after every so many of another table.
func fillUnrelated(b *testing.B) *stack.MySQL {
	b.Helper()
	set, err := stack.SetFromEnv()
	require.NoError(b, err)
	dir, err := os.MkdirTemp("", "tailbox-bench-")
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, os.RemoveAll(dir)) })
	server, err := stack.NewMySQL(b.Context(), stack.Config{Dir: dir, Set: set, Log: os.Stderr, MySQLOptions: []string{"--sync-binlog=0",
		"--innodb-flush-log-at-trx-commit=0", "--max-binlog-size=128M"}})
	require.NoError(b, err)
	b.Cleanup(func() {
		_ = server.Kill() // the data is thrown away
		require.NoError(b, server.Stop(context.Background()))
	})
	require.NoError(b, server.Start(b.Context()))
	require.NoError(b, services.Prepare(b.Context(), server))
	db := schematest.Open(b, server.DSN(mysql.Database))
	_, err = db.ExecContext(b.Context(), "CREATE TABLE other (id INT AUTO_INCREMENT PRIMARY KEY, a BIGINT, b VARCHAR(300), c DATETIME(6))")
	require.NoError(b, err)

	values := strings.TrimSuffix(strings.Repeat("(7, '"+strings.Repeat("x", 280)+"', NOW(6)),", unrelatedRows), ",")
	var group sync.WaitGroup
	const writers = 4
	failed := make(chan error, writers)
	for range writers {
		group.Go(func() {
			for i := range unrelatedTransactions / writers {
				if _, err := db.ExecContext(b.Context(), "INSERT INTO other (a, b, c) VALUES "+values); err != nil {
					failed <- err
					return
				}
				if i%5 == 0 { // one row of the outbox for a hundred of the other
					if err := schema.Insert(b.Context(), db, schematest.Event()); err != nil {
						failed <- err
						return
					}
				}
			}
		})
	}
	group.Wait()
	require.Empty(b, failed)
	require.NoError(b, schema.Insert(b.Context(), db, schematest.Event(func(e *schema.Event) { e.Type = "Last" })))
	return server
}

func lastEvent(b *testing.B, db *sql.DB) (id string) {
	b.Helper()
	require.NoError(b, db.QueryRowContext(b.Context(), "SELECT id FROM outbox WHERE type = 'Last'").Scan(&id))
	return id
}

func binlogFiles(b *testing.B, db *sql.DB) (names []string, size int64) {
	b.Helper()
	rows, err := db.QueryContext(b.Context(), "SHOW BINARY LOGS")
	require.NoError(b, err)
	defer rows.Close()
	columns, err := rows.Columns()
	require.NoError(b, err)
	for rows.Next() {
		var name string
		var bytes int64
		into := []any{&name, &bytes}
		for range columns[2:] {
			into = append(into, new(sql.RawBytes))
		}
		require.NoError(b, rows.Scan(into...))
		names, size = append(names, name), size+bytes
	}
	require.NoError(b, rows.Err())
	return names, size
}

// binlogTool is the command line of the server's own reader, of this machine or of the newest servers' root.
func binlogTool(b *testing.B, server *stack.MySQL) []string {
	b.Helper()
	name := "mysqlbinlog"
	if server.Flavor() == stack.FlavorMariaDB {
		name = "mariadb-binlog"
	}
	if path, err := exec.LookPath(name); err == nil {
		return []string{path}
	}
	root, err := filepath.Abs(filepath.Join("..", "..", ".run", "newest-root"))
	require.NoError(b, err)
	path := filepath.Join(root, "usr", "bin", name)
	_, err = os.Stat(path)
	require.NoError(b, err, "%s is needed: install mariadb-client or mysql-client-core, or let SERVERS=newest make its folder first", name)
	libraries := filepath.Join(root, "usr", "lib", runtime.GOARCH+"-linux-gnu")
	if runtime.GOARCH == "amd64" {
		libraries = filepath.Join(root, "usr", "lib", "x86_64-linux-gnu")
	}
	loaders, err := filepath.Glob(filepath.Join(libraries, "ld-linux*.so.*"))
	require.NoError(b, err)
	require.NotEmpty(b, loaders)
	return []string{loaders[0], "--library-path", libraries, path}
}

// runTool reads all files once. With --raw it writes a file for each, here a link to /dev/null.
func runTool(b *testing.B, tool []string, server *stack.MySQL, files []string) time.Duration {
	b.Helper()
	dir := b.TempDir()
	for _, file := range files {
		require.NoError(b, os.Symlink("/dev/null", filepath.Join(dir, file)))
	}
	args := append(slices.Clone(tool[1:]), "--no-defaults", "--read-from-remote-server", "--raw", "--host=127.0.0.1", fmt.Sprintf("--port=%d", server.Port()),
		"--user=root", "--protocol=tcp", "--result-file="+dir+"/")
	cmd := exec.CommandContext(b.Context(), tool[0], append(args, files...)...)
	began := time.Now()
	out, err := cmd.CombinedOutput()
	took := time.Since(began)
	require.NoError(b, err, string(out))
	return took
}

// readAll reads from the beginning to the last event, as the relay does.
func readAll(b *testing.B, server *stack.MySQL, db *sql.DB, last string) time.Duration {
	b.Helper()
	cfg, err := driver.ParseDSN(server.DSN(mysql.Database))
	require.NoError(b, err)
	reader := binlog.New(binlog.Config{Server: cfg, DB: db, Start: binlog.StartEarliest,
		Outbox: binlog.Table{Schema: cfg.DBName, Name: "outbox"}, Own: []binlog.Table{{Schema: cfg.DBName, Name: "relay_checkpoint"}}})
	reader.Begin(relay.Position{})
	enough := errors.New("enough")
	rows := 0
	began := time.Now()
	err = reader.Stream(b.Context(), func(row relay.Row) error {
		rows++
		if row.Event.ID == last {
			return enough
		}
		return nil
	})
	took := time.Since(began)
	require.ErrorIs(b, err, enough)
	require.Equal(b, unrelatedTransactions/5+1, rows)
	return took
}
