package binlog

import (
	"bytes"
	"slices"
	"strings"

	"github.com/go-mysql-org/go-mysql/replication"

	"tailbox/cdc/relay"
)

// query follows BEGIN, COMMIT, savepoints and DDL, and refuses changes of the outbox that are logged as statements.
func (h *handler) query(e *replication.QueryEvent) error {
	statement := stripComments(string(e.Query[:min(len(e.Query), 4096)]))
	verb, rest := nextWord(statement)
	second, name := nextWord(rest)
	switch verb {
	case "BEGIN":
		h.txn.open, h.txn.begun = true, true
	case "COMMIT":
		return h.commit()
	case "ROLLBACK":
		if second == "TO" {
			return h.rollbackTo(identifier(name))
		}
		return h.rollback()
	case "SAVEPOINT":
		h.save(identifier(rest))
	case "XA":
		return h.xa(second)
	case "INSERT", "REPLACE", "UPDATE", "DELETE", "LOAD", "CALL", "SELECT", "DO", "WITH":
		return h.statement(verb, string(e.Schema), string(e.Query))
	case "SET":
		if second == "STATEMENT" { // ... FOR a statement
			return h.statement(verb, string(e.Schema), string(e.Query))
		}
		return h.ddl(e.Query)
	default:
		return h.ddl(e.Query)
	}
	return nil
}

func (h *handler) ddl(query []byte) error {
	h.txn.foreign = true
	last := query[max(0, len(query)-64):]
	switch {
	case bytes.HasSuffix(bytes.ToUpper(bytes.TrimSpace(last)), []byte("START TRANSACTION")):
		h.txn.begun = true // CREATE TABLE ... SELECT: its rows follow in the same group
	case !h.txn.begun || h.txn.standalone:
		return h.commit() // DDL is a group of its own
	}
	return nil
}

// xa follows XA transactions. Their rows are in the binlog before they are decided, and the decision is a group of its own.
func (h *handler) xa(word string) error {
	switch word {
	case "START", "BEGIN":
		h.txn.begun, h.txn.xa = true, true
	case "END":
	case "ROLLBACK":
		h.txn.foreign = true
		return h.rollback()
	default:
		h.txn.foreign = true
		return h.commit()
	}
	return nil
}

// prepared ends an XA transaction at its PREPARE event, which is its commit, too, where there is but one phase.
func (h *handler) prepared(body []byte) error {
	onePhase := len(body) > 0 && body[0] != 0
	if h.txn.changes > 0 && !onePhase {
		return relay.Haltf(relay.XAUnsupported, "transaction %s wrote to %s under XA: it is in the binlog before it is decided, "+
			"so its rows cannot be sent; write the outbox in plain transactions, and move the relay behind this one when it is decided",
			h.txn.name, h.reader.cfg.Outbox)
	}
	h.txn.foreign = true
	return h.commit()
}

// statement judges a change of data that was logged as a statement, which brings no rows.
func (h *handler) statement(verb, database, text string) error {
	h.txn.foreign = true
	hits := false
	switch verb {
	case "INSERT", "REPLACE":
		hits = h.named(target(text), database)
	case "DELETE": // no event is lost with it, unless a trigger writes to the outbox
	case "CALL", "SELECT", "DO":
		if h.placesOnly {
			break
		}
		return relay.Haltf(relay.NotRowLogged, "a function or procedure that changes data was logged as a statement in transaction %s, and may have "+
			"written to %s: a session set binlog_format to something else than ROW; take the right to do so from its user", h.txn.name, h.reader.cfg.Outbox)
	default:
		name := h.reader.cfg.Outbox
		hits = mentions(text, name.Name) && (h.same([]byte(database), h.schema) || mentions(text, name.Schema))
	}
	if hits {
		return relay.Haltf(relay.NotRowLogged, "a change of %s was logged as a statement in transaction %s: a session set "+
			"binlog_format to something else than ROW; take the right to do so from its user", h.reader.cfg.Outbox, h.txn.name)
	}
	h.reader.notes.statement(h.txn.name)
	if !h.txn.begun || h.txn.standalone {
		return h.commit()
	}
	return nil
}

// loaded judges a LOAD DATA that was logged as a statement. go-mysql leaves its text out.
func (h *handler) loaded(raw []byte) error {
	const schemaLength, statusLength, header = 8, 11, 26 // offsets behind the event's header
	raw = raw[min(len(raw), replication.EventHeaderSize):]
	if len(raw) < header {
		return relay.Haltf(relay.SourceIncident, "the event of a LOAD DATA in transaction %s is too short", h.txn.name)
	}
	database := int(raw[schemaLength])
	text := int(raw[statusLength]) | int(raw[statusLength+1])<<8
	raw = raw[header:]
	if len(raw) < text+database {
		return relay.Haltf(relay.SourceIncident, "the event of a LOAD DATA in transaction %s is too short", h.txn.name)
	}
	return h.statement("LOAD", string(raw[text:text+database]), string(raw[text+database:]))
}

// named tells whether a table, as a statement spells it, is the outbox.
func (h *handler) named(t Table, database string) bool {
	if t.Schema == "" {
		t.Schema = database
	}
	return h.same([]byte(t.Name), h.outbox) && h.same([]byte(t.Schema), h.schema)
}

// insertWords may stand between an INSERT or REPLACE and its table.
var insertWords = []string{"LOW_PRIORITY", "HIGH_PRIORITY", "DELAYED", "IGNORE", "INTO"}

// target is the table that an INSERT or REPLACE names.
func target(statement string) Table {
	_, rest := nextWord(stripComments(statement))
	for rest = stripComments(rest); ; rest = stripComments(rest) {
		word, after := nextWord(rest)
		if !slices.Contains(insertWords, word) {
			break
		}
		rest = after
	}
	first, rest := nextIdentifier(rest)
	if rest = strings.TrimLeft(rest, " \t\r\n"); strings.HasPrefix(rest, ".") {
		second, _ := nextIdentifier(rest[1:])
		return Table{Schema: first, Name: second}
	}
	return Table{Name: first}
}

// nextIdentifier takes a name, quoted or not, from the front of a statement.
func nextIdentifier(s string) (name, rest string) {
	s = strings.TrimLeft(s, " \t\r\n")
	if s == "" {
		return "", ""
	}
	if quote := s[:1]; quote == "`" || quote == `"` {
		end := 1
		for end < len(s) {
			at := strings.Index(s[end:], quote)
			if at < 0 {
				return s[1:], ""
			}
			end += at
			if !strings.HasPrefix(s[end+1:], quote) {
				return strings.ReplaceAll(s[1:end], quote+quote, quote), s[end+1:]
			}
			end += 2
		}
		return s[1:], ""
	}
	end := strings.IndexFunc(s, func(r rune) bool { return strings.ContainsRune(" \t\r\n.(;,`\"", r) })
	if end < 0 {
		end = len(s)
	}
	return s[:end], s[end:]
}

// identifier is a name in the form in which two spellings of it are equal.
func identifier(s string) string {
	name, _ := nextIdentifier(s)
	return strings.ToLower(name)
}

// mentions tells whether a name stands in a text as a word of its own, in any case.
func mentions(text, name string) bool {
	text, name = strings.ToLower(text), strings.ToLower(name)
	part := func(at int) bool {
		return at >= 0 && at < len(text) && (text[at] == '_' || text[at] == '$' || isLetterOrDigit(text[at]))
	}
	for at := 0; ; at++ {
		next := strings.Index(text[at:], name)
		if next < 0 {
			return false
		}
		at += next
		if !part(at-1) && !part(at+len(name)) {
			return true
		}
	}
}

func isLetterOrDigit(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c >= 0x80
}

// nextWord takes the first word of a statement, in upper case, and what follows it.
func nextWord(s string) (word, rest string) {
	s = strings.TrimLeft(s, " \t\r\n")
	end := strings.IndexFunc(s, func(r rune) bool { return r != '_' && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') })
	if end < 0 {
		end = len(s)
	}
	return strings.ToUpper(s[:end]), s[end:]
}

// stripComments removes comments at the start of a statement.
func stripComments(s string) string {
	for {
		s = strings.TrimSpace(s)
		switch {
		case strings.HasPrefix(s, "/*!"), strings.HasPrefix(s, "/*M!"): // the server executes what is in it
			s = strings.TrimLeft(strings.TrimLeft(s, "/*M!"), "0123456789")
		case strings.HasPrefix(s, "/*"):
			_, rest, closed := strings.Cut(s, "*/")
			if !closed {
				return ""
			}
			s = rest
		case strings.HasPrefix(s, "-- "), strings.HasPrefix(s, "#"):
			_, rest, _ := strings.Cut(s, "\n")
			s = rest
		default:
			return s
		}
	}
}
