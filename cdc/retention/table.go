package retention

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"

	"tailbox/cdc/outbox"
	"tailbox/cdc/relay"
)

// table is what a sweep needs to know of the outbox.
type table struct {
	id      string // its columns
	created string // empty if it has none
	indexed []string
}

// finding is what keeps rows from being deleted, for a person.
type finding struct{ problem, mend string }

func (f *finding) Error() string { return f.problem + "; to mend it: " + f.mend }

// queryer is *sql.Conn or *sql.DB.
type queryer interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// look learns the table's columns, from time to time.
func (s *Sweeper) look(ctx context.Context, conn *sql.Conn) error {
	if time.Since(s.asked) < tableMaxAge {
		return nil
	}
	t, err := s.cfg.describe(ctx, conn)
	if err != nil {
		return err
	}
	if problem := s.cfg.unfit(t); problem != nil {
		return problem
	}
	if t.id != s.table.id || t.created != s.table.created {
		s.from = cursor{}
	}
	s.table, s.asked = t, time.Now()
	return nil
}

func (c Config) describe(ctx context.Context, q queryer) (t table, err error) {
	columns, err := c.names(ctx, q, `SELECT column_name FROM information_schema.columns
		WHERE table_schema = ? AND table_name = ? ORDER BY ordinal_position`)
	if err != nil {
		return t, err
	}
	mapping, err := outbox.NewMapping(columns)
	if err != nil {
		return t, &finding{problem: err.Error(), mend: "add the column"}
	}
	t.id, _ = mapping.Column("id")
	t.created, _ = mapping.Column("created_at")
	t.indexed, err = c.names(ctx, q, "SELECT column_name FROM information_schema.statistics WHERE table_schema = ? AND table_name = ? AND seq_in_index = 1")
	return t, err
}

func (c Config) names(ctx context.Context, q queryer, query string) (list []string, err error) {
	rows, err := q.QueryContext(ctx, query, c.Outbox.Schema, c.Outbox.Name)
	if err != nil {
		return nil, fmt.Errorf("look at the outbox table: %w", err)
	}
	defer func() { _ = rows.Close() }() // read to its end, or given up
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, fmt.Errorf("look at the outbox table: %w", err)
		}
		list = append(list, name)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("look at the outbox table: %w", err)
	}
	return list, nil
}

// unfit tells why rows of such a table cannot be deleted, or nil.
func (c Config) unfit(t table) *finding {
	has := func(column string) bool {
		return slices.ContainsFunc(t.indexed, func(name string) bool { return strings.EqualFold(name, column) })
	}
	switch {
	case t.created == "" && c.Keep > 0:
		return &finding{
			problem: fmt.Sprintf("RETENTION=%s needs to know how old a row is, and %s has no column created_at", c.Keep, c.Outbox),
			mend:    "set RETENTION=0 (delete what is confirmed) or RETENTION=off, or add the column",
		}
	case !has(t.id):
		return &finding{
			problem: fmt.Sprintf("%s has no index that begins with %s: each delete would read the whole table", c.Outbox, t.id),
			mend:    fmt.Sprintf("ALTER TABLE %s ADD UNIQUE INDEX (%s), or set RETENTION=off", c.Outbox, t.id),
		}
	}
	return nil
}

func (c Config) mayNotDelete() *finding {
	return &finding{
		problem: fmt.Sprintf("the user may not delete rows of %s", c.Outbox),
		mend:    fmt.Sprintf("GRANT DELETE ON %s TO '%s'@'...', or set RETENTION=off", c.Outbox, c.User),
	}
}

// Check looks, before the start and for doctor, whether rows can be deleted. Of c only DB, Outbox, User and Keep are needed.
func (c Config) Check(ctx context.Context) (relay.Check, error) {
	check := relay.Check{Name: "retention", Level: relay.CheckOK, Found: "is off: nobody deletes outbox rows"}
	if c.Keep == Off {
		return check, nil
	}
	t, err := c.describe(ctx, c.DB)
	problem, found := errors.AsType[*finding](err)
	if err != nil && !found {
		return check, err
	}
	if !found {
		problem = c.unfit(t)
	}
	if problem == nil {
		if problem, err = c.tryDelete(ctx); err != nil {
			return check, err
		}
	}
	check.Found = fmt.Sprintf("rows whose events are confirmed are deleted at the age of %s", c.Keep)
	if problem == nil {
		return check, nil
	}
	check.Level, check.Found, check.Mend = relay.CheckWarn, problem.problem, problem.mend
	if t.created == "" && c.Keep > 0 {
		check.Level, check.Reason = relay.CheckFail, relay.SchemaMismatch // the setting is wrong, and no wait mends it
	}
	return check, nil
}

// tryDelete asks the server to explain a delete, which takes the same rights and changes nothing.
func (c Config) tryDelete(ctx context.Context) (*finding, error) {
	rows, err := c.DB.QueryContext(ctx, "EXPLAIN DELETE FROM "+c.Outbox.Quoted()+" WHERE FALSE")
	if refusal, ok := errors.AsType[*mysql.MySQLError](err); ok && refusal.Number == 1142 {
		return c.mayNotDelete(), nil
	}
	if err != nil {
		return nil, fmt.Errorf("try to delete outbox rows: %w", err)
	}
	defer rows.Close()
	for rows.Next() { // what the plan says is of no interest
	}
	return nil, rows.Err()
}

func quote(column string) string { return "`" + column + "`" }
