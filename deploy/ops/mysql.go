package ops

import (
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/go-sql-driver/mysql"
)

// ParseDSN reads MYSQL_DSN, which is go-sql-driver's form, and sets what every service of Tailbox relies on: times are
// UTC, RowsAffected counts rows that were found, statements and files cannot be smuggled in, and no call waits for ever.
func ParseDSN(dsn Secret) (*mysql.Config, error) {
	cfg, err := mysql.ParseDSN(dsn.Reveal())
	if err != nil {
		// What the driver says is left out: it quotes the part that it could not read, which may be the password.
		return nil, fmt.Errorf("%w: MYSQL_DSN is not of the form user:password@tcp(host:3306)/database", ErrBadConfig)
	}
	if cfg.DBName == "" {
		return nil, fmt.Errorf("%w: MYSQL_DSN names no database: write it as user:password@tcp(host:3306)/database", ErrBadConfig)
	}
	cfg.Logger = &mysql.NopLogger{} // the driver's lines on standard error are not of our form; its errors are returned, too
	cfg.ParseTime = true
	cfg.Loc = time.UTC
	cfg.ClientFoundRows = true
	cfg.MultiStatements = false
	cfg.AllowAllFiles = false
	cfg.Timeout = orDefault(cfg.Timeout, 5*time.Second)
	cfg.ReadTimeout = orDefault(cfg.ReadTimeout, 30*time.Second)
	cfg.WriteTimeout = orDefault(cfg.WriteTimeout, 30*time.Second)
	return cfg, nil
}

// OpenMySQL returns a pool of at most conns connections. Nothing is dialled yet.
func OpenMySQL(dsn Secret, conns int) (*sql.DB, error) {
	cfg, err := ParseDSN(dsn)
	if err != nil {
		return nil, err
	}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, fmt.Errorf("%w: MYSQL_DSN: %w", ErrBadConfig, err)
	}
	db := sql.OpenDB(connector)
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	db.SetConnMaxIdleTime(time.Minute)
	return db, nil
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
