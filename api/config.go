package main

import (
	"errors"

	"tailbox/deploy/ops"
)

var service = ops.Service{
	Name:        "api",
	Description: "Takes customers over HTTP and commits each change together with its event in the outbox.",
	HTTPAddr:    ":3000",
}

// Config is all that the api can be told.
type Config struct {
	ops.Common
	MySQLDSN   ops.Secret   `name:"mysql-dsn" env:"MYSQL_DSN" help:"The database, as user:password@tcp(host:3306)/database. Also read from the file that MYSQL_DSN_FILE names."`
	MySQLTLS   ops.TLSFiles `embed:"" prefix:"mysql-tls-" envprefix:"MYSQL_TLS_"`
	Migrate    bool         `name:"migrate" env:"MIGRATE" help:"Bring the tables up to date at the start."`
	MigrateDSN ops.Secret   `name:"migrate-dsn" env:"MIGRATE_DSN" help:"Used for that alone, when MYSQL_DSN may not change tables. Defaults to MYSQL_DSN. Also MIGRATE_DSN_FILE."`
}

// Validate tells all that is wrong with the settings.
func (c *Config) Validate() error {
	errs := []error{c.Common.Validate()}
	if err := ops.Required("MYSQL_DSN", c.MySQLDSN, "'tailbox:...@tcp(localhost:3306)/tailbox'"); err != nil {
		errs = append(errs, err)
	} else {
		_, err := ops.ParseDSN("MYSQL_DSN", c.MySQLDSN, c.MySQLTLS)
		errs = append(errs, err)
	}
	if c.MigrateDSN != "" {
		_, err := ops.ParseDSN("MIGRATE_DSN", c.MigrateDSN, c.MySQLTLS)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// owner returns the DSN to migrate with and the variable that it came from.
func (c *Config) owner() (dsn ops.Secret, variable string) {
	if c.MigrateDSN != "" {
		return c.MigrateDSN, "MIGRATE_DSN"
	}
	return c.MySQLDSN, "MYSQL_DSN"
}
