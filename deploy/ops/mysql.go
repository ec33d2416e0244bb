package ops

import (
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/go-sql-driver/mysql"
)

// ParseDSN reads a setting of that name in go-sql-driver's form, and sets what every service of Tailbox relies on: times are
// UTC, RowsAffected counts rows that were found, statements and files cannot be smuggled in, and no call waits for ever. A
// DSN that says tls=true is encrypted, with the files MYSQL_TLS_*; they may be given for no other.
func ParseDSN(name string, dsn Secret, files TLSFiles) (*mysql.Config, error) {
	return ParseDSNWithin(answerTimeout, name, dsn, files)
}

// answerTimeout is how long the server may take to answer, unless a service or the DSN says otherwise.
const answerTimeout = 30 * time.Second

// ParseDSNWithin is ParseDSN for a service whose server may take so long to answer, 0 for as long as it likes, unless the DSN
// sets readTimeout to more than 0. A commit needs it: the driver waits for the answer to one whatever the context says.
func ParseDSNWithin(answer time.Duration, name string, dsn Secret, files TLSFiles) (*mysql.Config, error) {
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
	cfg.ReadTimeout = orDefault(cfg.ReadTimeout, answer)
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

// idleLimit is how long a session may ask for nothing, unless the DSN sets wait_timeout.
const idleLimit = 20 * time.Second

// OpenMySQL returns a pool of at most conns connections. Nothing is dialled yet.
//
// The server ends a session that asks for nothing for 20 seconds, or for as long as wait_timeout of the DSN says: a client
// that is gone without a word, with its host or its link, would otherwise leave its open transaction and the locks of that
// behind, for hours by default. Not for code that waits longer between two statements of a session.
func OpenMySQL(cfg *mysql.Config, conns int) (*sql.DB, error) {
	limit, err := EndIdle(cfg, idleLimit)
	if err != nil {
		return nil, err
	}
	db, err := openPool(cfg, conns)
	if err == nil {
		db.SetConnMaxIdleTime(limit / 2)
	}
	return db, err
}

// EndIdle lets the server end sessions that ask for nothing for so long, in whole seconds from 1 to the 20 that are OpenMySQL's
// own; a wait_timeout of the DSN stays as it is. It returns what holds.
func EndIdle(cfg *mysql.Config, limit time.Duration) (time.Duration, error) {
	if text, set := cfg.Params[waitTimeout]; set {
		seconds, err := strconv.ParseUint(text, 10, 31)
		if err != nil || seconds == 0 {
			return 0, fmt.Errorf("%w: MYSQL_DSN: wait_timeout=%q is not a number of seconds above 0", ErrBadConfig, text)
		}
		return time.Duration(seconds) * time.Second, nil
	}
	limit = min(max(limit.Truncate(time.Second), time.Second), idleLimit)
	if cfg.Params == nil {
		cfg.Params = map[string]string{}
	}
	cfg.Params[waitTimeout] = strconv.Itoa(int(limit.Seconds()))
	return limit, nil
}

const waitTimeout = "wait_timeout"

func openPool(cfg *mysql.Config, conns int) (*sql.DB, error) {
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, fmt.Errorf("%w: MYSQL_DSN: %w", ErrBadConfig, err)
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	db.SetConnMaxLifetime(connLifetime)
	return db, nil
}

// OpenMigrator returns a pool for migrations, by a setting as ParseDSN reads it. Nothing is dialled yet. The session that holds
// the migration's lock may be idle for as long as another one migrates.
func OpenMigrator(name string, dsn Secret, files TLSFiles) (*sql.DB, error) {
	cfg, err := migratorConfig(name, dsn, files)
	if err != nil {
		return nil, err
	}
	return openPool(cfg, 2)
}

// migratorConfig lets the server be silent for as long as the ALTER of a large table takes; a dead link is left to TCP.
func migratorConfig(name string, dsn Secret, files TLSFiles) (*mysql.Config, error) {
	return ParseDSNWithin(0, name, dsn, files)
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
