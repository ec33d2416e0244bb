package stack

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/go-sql-driver/mysql"
)

const (
	// FlavorMySQL is what MySQL.Flavor says of MySQL.
	FlavorMySQL = "mysql"
	// FlavorMariaDB is what MySQL.Flavor says of MariaDB.
	FlavorMariaDB = "mariadb"
)

// MySQL is a private database server, MySQL or MariaDB. It writes a row binlog with full images and full metadata and is
// durable at every commit. The user root has an empty password and every privilege.
type MySQL struct {
	*Server
	programs mysqlPrograms
	options  []string
	tls      *TLS
}

// NewMySQL finds or installs the database alone, as New does for both servers. Its files are in Dir/mysql.
func NewMySQL(ctx context.Context, cfg Config) (*MySQL, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	programs, err := locateMySQL(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if err := cfg.TLS.fits(programs.image); err != nil {
		return nil, err
	}
	m := &MySQL{programs: programs, options: cfg.MySQLOptions, tls: cfg.TLS}
	m.Server = &Server{
		name: programs.flavor,
		dir:  filepath.Join(cfg.Dir, "mysql"),
		port: []int{cfg.MySQLPort},
		base: cfg.Base,
		rec: record{
			Name: "mysql", Flavor: programs.flavor, Version: programs.version,
			Set: cfg.Set, Root: programs.root.path(), Detached: cfg.Detached,
		},
		launch: m.launch,
		probe:  m.probe,
	}
	if err := m.open(); err != nil {
		return nil, err
	}
	return m, nil
}

// Flavor is FlavorMySQL or FlavorMariaDB.
func (m *MySQL) Flavor() string { return m.rec.Flavor }

// Version is the server's version, such as 9.7.0 or 10.11.14-MariaDB.
func (m *MySQL) Version() string { return m.rec.Version }

// Port is the loopback port of the server.
func (m *MySQL) Port() int { return m.port[0] }

// Addr is the server's address, host and port.
func (m *MySQL) Addr() string { return loopback(m.Port()) }

// DSN is the data source name for root and that database ("" for none), in the form of go-sql-driver/mysql. Times are
// parsed and in UTC.
func (m *MySQL) DSN(database string) string {
	cfg := mysql.NewConfig()
	cfg.User, cfg.Net, cfg.Addr, cfg.DBName = "root", "tcp", m.Addr(), database
	cfg.ParseTime, cfg.Loc = true, time.UTC
	return cfg.FormatDSN()
}

// Data is the folder of the server's files, for who wants to damage them.
func (m *MySQL) Data() string { return filepath.Join(m.dir, "data") }

// launch starts the server's process, with a data folder that is made if there is none.
func (m *MySQL) launch(ctx context.Context) (instance, error) {
	if m.programs.image != "" {
		return m.launchContainer(ctx)
	}
	if err := m.initialize(ctx); err != nil {
		return nil, err
	}
	// MySQL will not start while the pid in this file exists, be it another program's by now or that of a dead process
	// which nobody has collected. Ours is the folder: no server of it can be alive.
	if err := os.Remove(filepath.Join(m.Data(), socketName+".lock")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove stale socket lock: %w", err)
	}
	args := append([]string{"--no-defaults"}, m.serverOptions()...)
	args = append(args, m.localOptions()...)
	if m.tls != nil {
		folder := filepath.Join(m.dir, "tls")
		if err := m.tls.Save(folder); err != nil {
			return nil, err
		}
		args = append(args, m.tls.databaseOptions(folder)...)
	}
	args = append(args, m.options...)
	path, args := m.programs.root.command(m.dir, m.programs.server, args)
	p, err := Start(Command{
		Name: m.name, Path: path, Args: args, Dir: m.dir, Env: plainEnv(m.dir),
		LogFile: m.logFile(), Grace: serverGrace, Detached: m.rec.Detached,
	})
	if err != nil {
		return nil, err
	}
	return p, nil
}

// serverOptions are the options that do not depend on where the server runs. An option that only some versions know is
// given as loose.
func (m *MySQL) serverOptions() []string {
	options := []string{
		"--server-id=" + strconv.FormatUint(uint64(m.serverID()), 10),
		"--log-bin=binlog",
		"--binlog-format=ROW",
		"--binlog-row-image=FULL",
		"--binlog-row-metadata=FULL",
		"--sync-binlog=1",
		"--innodb-flush-log-at-trx-commit=1",
		"--innodb-buffer-pool-size=128M",
		"--character-set-server=utf8mb4",
		"--default-time-zone=+00:00",
		"--skip-name-resolve",
		"--performance-schema=OFF",
	}
	if m.programs.flavor == FlavorMySQL {
		return append(options,
			"--gtid-mode=ON",
			"--enforce-gtid-consistency=ON",
			"--secure-file-priv=NULL",
			"--loose-innodb-redo-log-capacity=64M",
			"--loose-mysqlx=OFF",
		)
	}
	return append(options, "--innodb-log-file-size=64M")
}

// localOptions tie the server to this machine's folder and loopback port. The socket's path is relative to the data
// folder, because a socket's full path may have no more than 107 bytes.
func (m *MySQL) localOptions() []string {
	options := []string{
		"--datadir=" + m.Data(),
		"--tmpdir=" + filepath.Join(m.dir, "tmp"),
		"--socket=" + socketName,
		"--pid-file=" + filepath.Join(m.dir, "mysqld.pid"),
		"--bind-address=127.0.0.1",
		"--port=" + strconv.Itoa(m.Port()),
	}
	return append(options, asRoot()...)
}

const socketName = "mysql.sock"

// asRoot is the consent that the server wants before it runs as root.
func asRoot() []string {
	if os.Getuid() == 0 {
		return []string{"--user=root"}
	}
	return nil
}

// serverID is the same for a folder at every start and differs between folders: a source's identity must not change under
// its replicas, and two sources must not share one.
func (m *MySQL) serverID() uint32 { return crc32.ChecksumIEEE([]byte(m.dir))>>1 + 1 }

// probe asks for a new connection and makes sure that it is our server that answers.
func (m *MySQL) probe(ctx context.Context) error {
	cfg, err := mysql.ParseDSN(m.DSN(""))
	if err != nil {
		return fmt.Errorf("open probe: %w", err)
	}
	cfg.Timeout, cfg.ReadTimeout = 2*time.Second, 5*time.Second
	cfg.Logger = &mysql.NopLogger{} // until the server is there every answer is bad news
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return fmt.Errorf("open probe: %w", err)
	}
	db := sql.OpenDB(connector)
	defer db.Close()
	var version, pidFile string
	if err := db.QueryRowContext(ctx, "SELECT VERSION(), @@pid_file").Scan(&version, &pidFile); err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	if m.programs.image == "" && pidFile != filepath.Join(m.dir, "mysqld.pid") {
		return fmt.Errorf("probe: another server answers on %s", m.Addr())
	}
	return nil
}
