package main

import (
	"database/sql"
	"errors"
	"fmt"
	"math"
	"net/url"
	"time"

	"github.com/go-sql-driver/mysql"

	"tailbox/cdc/binlog"
	"tailbox/cdc/publish"
	"tailbox/cdc/retention"
	"tailbox/deploy/ops"
)

// Config is all that can be set, as flags or in the environment.
type Config struct {
	ops.Common

	MySQLDSN   ops.Secret `name:"mysql-dsn" env:"MYSQL_DSN" help:"Source database, as user:password@tcp(host:3306)/database. One address, which leads to the primary, also after a failover. The replica connection is derived from it; tls=true encrypts both."`
	AMQPURL    ops.Secret `name:"amqp-url" env:"AMQP_URL" help:"Broker, as amqp://user:password@host:5672/vhost; amqps:// encrypts. Several URLs with commas between them are the nodes of one cluster, tried in turn."`
	RelayName  string     `name:"relay-name" env:"RELAY_NAME" default:"default" help:"Name of this relay: the key of its checkpoint."`
	ServerID   int        `name:"server-id" env:"SERVER_ID" default:"0" help:"Number of this process among the replicas of the source; no other replica may have it. 0 draws one at random."`
	Outbox     string     `name:"outbox-table" env:"OUTBOX_TABLE" default:"outbox" help:"Table whose inserts are published: name, or database.name."`
	Exchange   string     `name:"exchange" env:"EXCHANGE" default:"outbox.events" help:"Exchange to publish to, with braces as in ROUTING_KEY. One of a fixed name is declared as a durable topic exchange if it is missing."`
	RoutingKey string     `name:"routing-key" env:"ROUTING_KEY" default:"{aggregate_type}.{type}" help:"Routing key of each event; braces enclose id, aggregate_type, aggregate_id, aggregate_version, type, created_at or header.NAME."`

	MySQLTLS ops.TLSFiles `embed:"" prefix:"mysql-tls-" envprefix:"MYSQL_TLS_"`
	AMQPTLS  ops.TLSFiles `embed:"" prefix:"amqp-tls-" envprefix:"AMQP_TLS_"`

	MessageFormat     string `name:"message-format" env:"MESSAGE_FORMAT" default:"plain" help:"Form of the messages: plain, or cloudevents (the attributes of a CloudEvent 1.0 in binary mode as further headers)."`
	CloudEventsPrefix string `name:"cloudevents-prefix" env:"CLOUDEVENTS_PREFIX" default:"cloudEvents_" help:"What the names of CloudEvents headers begin with."`

	MaxMessageBytes    int           `name:"max-message-bytes" env:"MAX_MESSAGE_BYTES" default:"16777216" help:"Largest payload that is sent: at most the broker's max_message_size, which is 16 MiB in RabbitMQ 4. An event with a larger one is poison."`
	Window             int           `name:"window" env:"WINDOW" default:"1000" help:"Most events that may be sent and not confirmed."`
	CheckpointInterval time.Duration `name:"checkpoint-interval" env:"CHECKPOINT_INTERVAL" default:"200ms" help:"Least time between two saves of the checkpoint."`
	OnUnroutable       string        `name:"on-unroutable" env:"ON_UNROUTABLE" default:"hold" help:"What happens to an event that reaches no queue: hold (it and all behind it wait, and it is tried again) or park (it goes to the queue outbox.unrouted, and the rest goes on)."`
	OnPoison           string        `name:"on-poison" env:"ON_POISON" default:"quarantine" help:"What happens to an event that cannot be a message, because AMQP has no room for its type or headers or its payload is too large: quarantine (it is kept in relay_quarantine, to be retried or dropped, and the rest goes on) or halt."`
	StrictOrder        bool          `name:"strict-order" env:"STRICT_ORDER" help:"Keep at most one event per aggregate in flight, so that first deliveries keep their order even after the broker returned or refused one."`
	Start              string        `name:"start" env:"START" default:"snapshot" help:"Where to begin without a checkpoint: snapshot (what the table holds, then what is committed), latest or earliest."`
	Retention          string        `name:"retention" env:"RETENTION" default:"24h" help:"How long outbox rows are kept whose events are confirmed; 0 deletes them at once, off never."`
	OnGap              string        `name:"on-gap" env:"ON_GAP" default:"repair" help:"What happens when the binlog does not lead on from the checkpoint, because it was purged or reset: repair (send from the outbox table what may be missing, then go on) or halt."`
	LeaseTTL           time.Duration `name:"lease-ttl" env:"LEASE_TTL" default:"5s" help:"How long instances of one name wait for a sign of life from the one that relays before another takes over."`
	Migrate            bool          `name:"migrate" env:"MIGRATE" help:"Bring the tables up to date at the start."`
	MigrateDSN         ops.Secret    `name:"migrate-dsn" env:"MIGRATE_DSN" help:"Used for that alone, when MYSQL_DSN may not change tables. Defaults to MYSQL_DSN."`
	WorkerURL          string        `name:"worker-url" env:"WORKER_URL" help:"Where a worker answers HTTP, such as http://127.0.0.1:3002: the console then shows its numbers and dead letters. Empty for nowhere."`
	AdminToken         ops.Secret    `name:"admin-token" aliases:"token" env:"ADMIN_TOKEN" help:"Token of the calls that change the relay, as Authorization: Bearer TOKEN. They are refused without one."`
	ExitOnHalt         bool          `name:"exit-on-halt" env:"EXIT_ON_HALT" help:"Exit with code 3 when the relay halts, instead of staying up to tell why."`
}

// Values of ON_UNROUTABLE.
const (
	onUnroutableHold = "hold"
	onUnroutablePark = "park"
)

// Values of ON_POISON.
const (
	onPoisonQuarantine = "quarantine"
	onPoisonHalt       = "halt"
)

// Values of MESSAGE_FORMAT.
const (
	formatPlain       = "plain"
	formatCloudEvents = "cloudevents"
)

const maxWindow = 50000

// validate tells all that is wrong with the settings. It is not called Validate because kong would call it for every command.
func (c *Config) validate() error {
	errs := []error{
		c.Common.Validate(), //nolint:staticcheck // the embedded struct's own, not that of the command line
		ops.Required("MYSQL_DSN", c.MySQLDSN, "cdc:password@tcp(127.0.0.1:3306)/tailbox"),
		ops.Required("AMQP_URL", c.AMQPURL, "amqp://guest:guest@127.0.0.1:5672/"),
		ops.OneOf("MESSAGE_FORMAT", c.MessageFormat, formatPlain, formatCloudEvents),
		ops.Positive("WINDOW", c.Window),
		ops.Positive("MAX_MESSAGE_BYTES", c.MaxMessageBytes),
		ops.OneOf("ON_UNROUTABLE", c.OnUnroutable, onUnroutableHold, onUnroutablePark),
		ops.OneOf("ON_POISON", c.OnPoison, onPoisonQuarantine, onPoisonHalt),
		ops.Positive("CHECKPOINT_INTERVAL", c.CheckpointInterval),
		c.validateLease(),
		c.validateRetention(),
		ops.OneOf("ON_GAP", c.OnGap, string(binlog.GapRepair), string(binlog.GapHalt)),
		ops.OneOf("START", c.Start, string(binlog.StartSnapshot), string(binlog.StartLatest), string(binlog.StartEarliest)),
	}
	if c.Window > maxWindow {
		errs = append(errs, fmt.Errorf("WINDOW: %d is more than %d, which no broker answers faster for", c.Window, maxWindow))
	}
	if c.ServerID < 0 || c.ServerID > math.MaxUint32 {
		errs = append(errs, fmt.Errorf("SERVER_ID: %d is not a number from 0 to %d", c.ServerID, uint32(math.MaxUint32)))
	}
	if c.RelayName == "" || len(c.RelayName) > 64 {
		errs = append(errs, errors.New("RELAY_NAME: a name of 1 to 64 bytes is needed"))
	}
	if c.MySQLDSN != "" {
		server, err := c.database()
		errs = append(errs, err)
		if err == nil {
			_, err = binlog.ParseTable(c.Outbox, server.DBName)
			errs = append(errs, err)
		}
	}
	if c.MigrateDSN != "" {
		_, err := ops.ParseDSN("MIGRATE_DSN", c.MigrateDSN, c.MySQLTLS)
		errs = append(errs, err)
	}
	if c.AMQPURL != "" {
		_, err := publish.New(publish.Config{URL: c.AMQPURL, TLS: c.AMQPTLS})
		errs = append(errs, err)
	}
	_, err := workerURL(c.WorkerURL)
	errs = append(errs, err)
	for _, template := range []struct{ name, text string }{{"EXCHANGE", c.Exchange}, {"ROUTING_KEY", c.RoutingKey}} {
		if _, err := publish.ParseTemplate(template.text); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", template.name, err))
		}
	}
	return errors.Join(errs...)
}

// Bounds of LEASE_TTL: what a busy database answers in, and what the column holds.
const (
	minLeaseTTL = time.Second
	maxLeaseTTL = 24 * time.Hour
)

func (c *Config) validateLease() error {
	if c.LeaseTTL < minLeaseTTL || c.LeaseTTL > maxLeaseTTL {
		return fmt.Errorf("LEASE_TTL: %s is not between %s and %s", c.LeaseTTL, minLeaseTTL, maxLeaseTTL)
	}
	return nil
}

// database is where the source is, and how it is reached.
func (c *Config) database() (*mysql.Config, error) {
	return ops.ParseDSN("MYSQL_DSN", c.MySQLDSN, c.MySQLTLS)
}

// openDatabase returns a pool on the source.
func (c *Config) openDatabase(conns int) (*sql.DB, error) {
	server, err := c.database()
	if err != nil {
		return nil, err
	}
	return ops.OpenMySQL(server, conns)
}

// openLeased returns a pool for transactions that lock the relay's row. Those of an instance that is gone without a word end
// before another one may take its lease over, which would wait for them.
func (c *Config) openLeased(conns int) (*sql.DB, error) {
	server, err := c.database()
	if err != nil {
		return nil, err
	}
	if _, err := ops.EndIdle(server, c.LeaseTTL); err != nil {
		return nil, err
	}
	return ops.OpenMySQL(server, conns)
}

// workerURL reads WORKER_URL, nil when it is empty. An error leaves out what was given: it may hold a password.
func workerURL(text string) (*url.URL, error) {
	if text == "" {
		return nil, nil
	}
	at, err := url.Parse(text)
	if err != nil || at.Host == "" || at.User != nil || at.Scheme != "http" && at.Scheme != "https" {
		return nil, errors.New("WORKER_URL is not of the form http://host:3002")
	}
	return at, nil
}

func (c *Config) validateRetention() error {
	_, err := retention.Parse(c.Retention)
	return err
}
