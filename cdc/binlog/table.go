package binlog

import (
	"fmt"
	"slices"
	"strings"

	"tailbox/cdc/outbox"
	"tailbox/cdc/relay"
)

// column is a column of the outbox table, as information_schema describes it.
type column struct {
	name    string
	kind    string // data type, such as varchar
	charset string // empty for what is not text
}

// kinds are the data types that an event's field can be read from, equally by a SELECT and from the binlog: what the
// binlog has of an ENUM is its number, of a UUID its bytes.
var (
	textKinds  = []string{"char", "varchar", "tinytext", "text", "mediumtext", "longtext"}
	bytesKinds = []string{"json", "tinyblob", "blob", "mediumblob", "longblob", "varbinary"}
	wholeKinds = []string{"mediumint", "int", "bigint"}
	timeKinds  = []string{"datetime", "timestamp"}

	fieldKinds = []struct {
		field string
		kinds []string
	}{
		{"id", slices.Concat(textKinds, wholeKinds)},
		{"aggregate_type", textKinds},
		{"aggregate_id", slices.Concat(textKinds, wholeKinds)},
		{"type", textKinds},
		{"payload", slices.Concat(textKinds, bytesKinds)},
		{"aggregate_version", slices.Concat(wholeKinds, textKinds)},
		{"headers", slices.Concat(textKinds, bytesKinds)},
		{"created_at", timeKinds},
	}
)

// charsets are those whose bytes are UTF-8, or nobody's.
var charsets = []string{"", "utf8", "utf8mb3", "utf8mb4", "ascii", "binary"}

// checkTable: there, with transactions, with the columns of an event, each of a type that can be read.
func (s *server) checkTable(checks *list, cfg Config) {
	switch {
	case len(s.columns) == 0:
		checks.fail(relay.SchemaMismatch, "outbox table", fmt.Sprintf("the table %s does not exist, or the user may not see it", cfg.Outbox),
			fmt.Sprintf("apply the migrations (start the api with MIGRATE=true), or GRANT SELECT ON %s TO '%s'@'...'", cfg.Outbox, cfg.Server.User))
		return
	case !strings.EqualFold(s.engine, "InnoDB"):
		checks.fail(relay.SchemaMismatch, "outbox table", fmt.Sprintf("the table %s has the engine %s, which has no transactions", cfg.Outbox, s.engine),
			fmt.Sprintf("ALTER TABLE %s ENGINE=InnoDB", cfg.Outbox))
		return
	}
	mapping, err := outbox.NewMapping(s.columns)
	if err != nil {
		checks.fail(relay.SchemaMismatch, "outbox table", err.Error(), "add the column to the table, or set OUTBOX_TABLE to the right one")
		return
	}
	before := len(*checks)
	for _, f := range fieldKinds {
		if name, has := mapping.Column(f.field); has {
			s.checkColumn(checks, cfg, name, f.kinds)
		}
	}
	if len(*checks) == before {
		checks.ok("outbox table", cfg.Outbox.String()+" has what an event needs")
	}
}

func (s *server) checkColumn(checks *list, cfg Config, name string, kinds []string) {
	at := slices.IndexFunc(s.details, func(c column) bool { return c.name == name })
	if at < 0 {
		return
	}
	c := s.details[at]
	switch {
	case !slices.Contains(kinds, c.kind):
		checks.fail(relay.SchemaMismatch, "outbox column "+name, fmt.Sprintf("the column %s of %s is %s, which the relay cannot read for it; it reads %s",
			name, cfg.Outbox, c.kind, strings.Join(kinds, ", ")), fmt.Sprintf("ALTER TABLE %s MODIFY %s to one of these", cfg.Outbox, name))
	case !slices.Contains(charsets, c.charset):
		checks.fail(relay.SchemaMismatch, "outbox column "+name, fmt.Sprintf("the column %s of %s is in %s: the binlog has its bytes, which are not UTF-8",
			name, cfg.Outbox, c.charset), fmt.Sprintf("ALTER TABLE %s CONVERT TO CHARACTER SET utf8mb4", cfg.Outbox))
	}
}
