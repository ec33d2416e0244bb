package ops

import (
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
)

// ParseDSN reads a setting of that name in go-sql-driver's form, and sets what every service of Tailbox relies on: times are
// UTC, RowsAffected counts rows that were found, statements and files cannot be smuggled in, and no call waits for ever. A
// DSN that says tls=true is encrypted, with the files MYSQL_TLS_*; they may be given for no other.
func ParseDSN(name string, dsn Secret, files TLSFiles) (*mysql.Config, error) {
	cfg, err := mysql.ParseDSN(dsn.Reveal())
	if err != nil {
		// What the driver says is left out: it quotes the part that it could not read, which may be the password.
		return nil, fmt.Errorf("%w: %s is not of the form user:password@tcp(host:3306)/database", ErrBadConfig, name)
	}
	if cfg.DBName == "" {
		return nil, fmt.Errorf("%w: %s names no database: write it as user:password@tcp(host:3306)/database", ErrBadConfig, name)
	}
	cfg.Logger = &mysql.NopLogger{} // the driver's lines on standard error are not of our form; its errors are returned, too
	cfg.ParseTime = true
	cfg.Loc = time.UTC
	cfg.ClientFoundRows = true
	cfg.MultiStatements = false
	cfg.AllowAllFiles = false
	cfg.RejectReadOnly = true // a connection to a server that takes no writes any more is given up for a new one: a failover
	cfg.Timeout = orDefault(cfg.Timeout, 5*time.Second)
	cfg.ReadTimeout = orDefault(cfg.ReadTimeout, 30*time.Second)
	cfg.WriteTimeout = orDefault(cfg.WriteTimeout, 30*time.Second)
	if err := encrypt(name, cfg, files); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrBadConfig, err)
	}
	return cfg, nil
}

// encrypt takes the files into the TLS configuration that the driver made of tls=true.
func encrypt(name string, cfg *mysql.Config, files TLSFiles) error {
	loaded, err := files.load("MYSQL_TLS_")
	if files.any() && cfg.TLSConfig != "true" {
		return errors.Join(err, fmt.Errorf("%s does not say tls=true, so MYSQL_TLS_CA, MYSQL_TLS_CERT and MYSQL_TLS_KEY would not be used", name))
	}
	if cfg.TLSConfig == "true" {
		cfg.TLS.MinVersion, cfg.TLS.RootCAs, cfg.TLS.GetClientCertificate = loaded.MinVersion, loaded.RootCAs, loaded.GetClientCertificate
	}
	return err
}

// connLifetime is how long a pool can go on with the server to which its address led before a failover.
const connLifetime = time.Minute

// OpenMySQL returns a pool of at most conns connections. Nothing is dialled yet.
func OpenMySQL(cfg *mysql.Config, conns int) (*sql.DB, error) {
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, fmt.Errorf("%w: MYSQL_DSN: %w", ErrBadConfig, err)
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	db.SetConnMaxIdleTime(time.Minute)
	db.SetConnMaxLifetime(connLifetime)
	return db, nil
}

// idleLimit is how long a session of EndIdle may ask for nothing.
const idleLimit = 20 * time.Second

// EndIdle lets the server end a session that asks for nothing for 20 seconds, unless the DSN sets wait_timeout, and returns
// how long a pool may keep such a session unused. A client that is gone without a word, with its host or its link, would leave
// its open transaction and the locks of that behind, for hours by default. Not for code that waits longer between two
// statements of a transaction.
func EndIdle(cfg *mysql.Config) (keep time.Duration) {
	if _, set := cfg.Params["wait_timeout"]; set {
		return time.Minute
	}
	if cfg.Params == nil {
		cfg.Params = map[string]string{}
	}
	cfg.Params["wait_timeout"] = strconv.Itoa(int(idleLimit.Seconds()))
	return idleLimit / 2
}

// OpenMigrator returns a pool for migrations, by a setting as ParseDSN reads it. Nothing is dialled yet.
func OpenMigrator(name string, dsn Secret, files TLSFiles) (*sql.DB, error) {
	cfg, err := migratorConfig(name, dsn, files)
	if err != nil {
		return nil, err
	}
	return OpenMySQL(cfg, 2)
}

// migratorConfig lets the server be silent for as long as the ALTER of a large table takes; a dead link is left to TCP.
func migratorConfig(name string, dsn Secret, files TLSFiles) (*mysql.Config, error) {
	cfg, err := ParseDSN(name, dsn, files)
	if err == nil && !strings.Contains(dsn.Reveal(), "readTimeout=") {
		cfg.ReadTimeout = 0
	}
	return cfg, err
}

// MySQLCode returns the server's error number, or 0 when the error did not come from the server.
func MySQLCode(err error) uint16 {
	if refused, ok := errors.AsType[*mysql.MySQLError](err); ok {
		return refused.Number
	}
	return 0
}

func orDefault(value, fallback time.Duration) time.Duration {
	if value == 0 {
		return fallback
	}
	return value
}
