package main

import (
	"errors"
	"fmt"
	"time"

	"tailbox/deploy/ops"
	"tailbox/schema/topology"
	"tailbox/worker/consume"
	"tailbox/worker/effect"
)

// Config are the worker's settings.
type Config struct {
	ops.Common

	MySQLDSN    ops.Secret   `name:"mysql-dsn" env:"MYSQL_DSN" help:"The database, as user:password@tcp(host:3306)/database; tls=true encrypts. Required."`
	MySQLTLS    ops.TLSFiles `embed:"" prefix:"mysql-tls-" envprefix:"MYSQL_TLS_"`
	AMQPURL     ops.Secret   `name:"amqp-url" env:"AMQP_URL" help:"The broker, as amqp://user:password@host:5672/vhost; amqps:// encrypts. Several URLs with commas between them are the nodes of one cluster, tried in turn. Required."`
	AMQPTLS     ops.TLSFiles `embed:"" prefix:"amqp-tls-" envprefix:"AMQP_TLS_"`
	Queue       string       `name:"queue" env:"QUEUE" default:"customers" help:"The queue to consume; its retry and dead-letter queues are named after it, and so is the consumer in the inbox."`
	Concurrency int          `name:"concurrency" env:"CONCURRENCY" default:"8" help:"How many events of different aggregates are handled side by side."`
	Batch       int          `name:"batch" env:"BATCH" default:"64" help:"How many waiting events at most are applied by one transaction; 1 gives each its own."`
	Prefetch    int          `name:"prefetch" env:"PREFETCH" default:"256" help:"How many messages the broker hands out before any is acknowledged."`
	MaxAttempts int          `name:"max-attempts" env:"MAX_ATTEMPTS" default:"8" help:"How often a message is tried before it goes to the dead-letter queue."`
	Retention   string       `name:"inbox-retention" env:"INBOX_RETENTION" default:"720h" help:"How long the inbox remembers what was applied: longer than anything may take to be delivered again. off keeps it for ever."`
	AdminToken  ops.Secret   `name:"admin-token" env:"ADMIN_TOKEN" help:"Who changes something over HTTP shows this as a bearer token. Without it, nothing can be changed."`
	Migrate     bool         `name:"migrate" env:"MIGRATE" help:"Bring the database's tables to this version before consuming."`
	MigrateDSN  ops.Secret   `name:"migrate-dsn" env:"MIGRATE_DSN" help:"The database with a user that may change tables, for MIGRATE. Defaults to MYSQL_DSN."`
}

// Validate tells all that is wrong with the settings.
func (c *Config) Validate() error {
	errs := []error{
		c.Common.Validate(),
		ops.Required("MYSQL_DSN", c.MySQLDSN, "tailbox:secret@tcp(127.0.0.1:3306)/tailbox"),
		ops.Required("AMQP_URL", c.AMQPURL, "amqp://guest:guest@127.0.0.1:5672/"),
	}
	for _, count := range []struct {
		name  string
		value int
	}{{"CONCURRENCY", c.Concurrency}, {"BATCH", c.Batch}, {"PREFETCH", c.Prefetch}, {"MAX_ATTEMPTS", c.MaxAttempts}} {
		if count.value == 0 { // which a consume.Config takes for its default
			errs = append(errs, ops.Positive(count.name, count.value))
		}
	}
	_, err := retention(c.Retention)
	errs = append(errs, err)
	for name, dsn := range map[string]ops.Secret{"MYSQL_DSN": c.MySQLDSN, "MIGRATE_DSN": c.MigrateDSN} {
		if dsn != "" {
			_, err := ops.ParseDSN(name, dsn, c.MySQLTLS)
			errs = append(errs, err)
		}
	}
	url := c.AMQPURL
	if url == "" { // told already
		url = "amqp://localhost"
	}
	errs = append(errs, consume.Check(url, topology.Customers(c.Queue), c.consume()))
	return errors.Join(errs...)
}

// consume are the settings of the delivery loop.
func (c *Config) consume() consume.Config {
	retention, _ := retention(c.Retention) // Validate tells what is wrong with it
	return consume.Config{
		TLS:             c.AMQPTLS,
		Concurrency:     c.Concurrency,
		Batch:           c.Batch,
		Prefetch:        c.Prefetch,
		MaxAttempts:     c.MaxAttempts,
		InboxRetention:  retention,
		ChecksVersions:  true, // as effect does
		Drop:            effect.Drop,
		ShutdownTimeout: max(c.ShutdownTimeout, 0), // Common tells what is wrong with it
	}
}

// retention reads INBOX_RETENTION.
func retention(text string) (time.Duration, error) {
	if text == "off" {
		return consume.KeepInbox, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("INBOX_RETENTION: %q is neither off nor a duration such as 720h", text)
	}
	if d <= 0 { // which a consume.Config takes for something else
		return 0, fmt.Errorf("INBOX_RETENTION: %v would forget at once; off keeps the inbox for ever", d)
	}
	return d, nil
}
