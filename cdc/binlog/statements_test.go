package binlog_test

import (
	"strings"

	"tailbox/cdc/relay"
	"tailbox/deploy/stack"
)

// statementCase is one way to write, roll back or change the outbox. In its statements {id} stands for the values of a row of
// that id, and {id*n} for n rows that are named id1 and so on.
type statementCase struct {
	name string
	only string // flavour of server that can do it; empty for both
	// free says that the statements violate MySQL's enforce_gtid_consistency.
	free bool
	run  []string
	// want are the ids of the events, in order.
	want string
	// changed are ids whose rows in the table are not those that were inserted.
	changed string
	// halts is why the stream ends at the last transaction, of which nothing is delivered.
	halts relay.Reason
	// updates is how many updated rows are counted; or it depends on the server.
	updates int
}

const either = -1

// noTransactions makes the server log a transaction even if it, or a part of it, is rolled back.
const noTransactions = "CREATE TABLE plain (a INT) ENGINE=MyISAM"

// statementCases is every way to write, roll back and change the outbox.
var statementCases = []statementCase{
	// Inserts.
	{name: "an insert", run: []string{"INSERT INTO outbox VALUES {a}"}, want: "a"},
	{name: "an insert of many rows", run: []string{"INSERT INTO outbox VALUES {a*200}"}, want: rowNames("a", 200)},
	{name: "a large insert that fills many events", run: []string{"INSERT INTO outbox VALUES {big*40}"}, want: rowNames("big", 40)},
	{name: "some inserts in a transaction", run: []string{"BEGIN", "INSERT INTO outbox VALUES {a}", "INSERT INTO outbox VALUES {b},{c}", "COMMIT"}, want: "a b c"},
	{name: "a session without autocommit", run: []string{"SET autocommit=0", "INSERT INTO outbox VALUES {a}", "INSERT INTO outbox VALUES {b}", "COMMIT", "SET autocommit=1"}, want: "a b"},
	{name: "inserts beside other tables", run: []string{"CREATE TABLE other (a INT)", "BEGIN", "INSERT INTO other VALUES (1)", "INSERT INTO outbox VALUES {a}",
		"UPDATE other SET a = 2", "INSERT INTO outbox VALUES {b}", "DELETE FROM other", "COMMIT"}, want: "a b"},
	{name: "an insert from a select", run: []string{"CREATE TABLE source LIKE outbox", "INSERT INTO source VALUES {a*50}",
		"INSERT INTO outbox SELECT * FROM source ORDER BY aggregate_version"}, want: rowNames("a", 50)},
	{name: "an insert that leaves columns to their defaults", run: []string{
		"INSERT INTO outbox (id, aggregate_type, aggregate_id, aggregate_version, type, payload, created_at) VALUES ('a', 'c', '1', 1, 'T', '{}', '2026-01-02 03:04:05.678901')"}, want: "a"},
	{name: "INSERT IGNORE", run: []string{"INSERT INTO outbox VALUES {a}", "INSERT IGNORE INTO outbox VALUES {a},{b}"}, want: "a b"},
	{name: "INSERT IGNORE of nothing new", run: []string{"INSERT INTO outbox VALUES {a}", "INSERT IGNORE INTO outbox VALUES {a}"}, want: "a"},
	{name: "LOAD DATA LOCAL", run: []string{"LOAD DATA LOCAL INFILE 'Reader::rows' INTO TABLE outbox"}, want: rowNames("load", 30)},
	{name: "a prepared statement", run: []string{"PREPARE p FROM 'INSERT INTO outbox VALUES {a}'", "EXECUTE p", "DEALLOCATE PREPARE p"}, want: "a"},
	{name: "a procedure", run: []string{"CREATE PROCEDURE p() BEGIN INSERT INTO outbox VALUES {a}; INSERT INTO outbox VALUES {b}; END", "CALL p()"}, want: "a b"},
	{name: "a function", run: []string{"CREATE FUNCTION f() RETURNS INT DETERMINISTIC MODIFIES SQL DATA BEGIN INSERT INTO outbox VALUES {a}; RETURN 1; END", "DO f()"}, want: "a"},
	{name: "a trigger that writes the outbox", run: []string{"CREATE TABLE orders (a INT)",
		"CREATE TRIGGER t AFTER INSERT ON orders FOR EACH ROW INSERT INTO outbox VALUES (CONCAT('t', NEW.a), 'order', '1', NEW.a, 'T', '{}', NULL, '2026-01-02 03:04:05')",
		"INSERT INTO orders VALUES (1),(2),(3)"}, want: "t1 t2 t3"},
	{name: "a trigger on the outbox", run: []string{"CREATE TABLE copies (id CHAR(36))",
		"CREATE TRIGGER t AFTER INSERT ON outbox FOR EACH ROW INSERT INTO copies VALUES (NEW.id)", "INSERT INTO outbox VALUES {a},{b}"}, want: "a b"},
	{name: "a trigger that changes the row", run: []string{"CREATE TRIGGER t BEFORE INSERT ON outbox FOR EACH ROW SET NEW.type = 'Changed'",
		"INSERT INTO outbox VALUES {a}"}, want: "a"},
	{name: "a view", run: []string{"CREATE VIEW v AS SELECT * FROM outbox", "INSERT INTO v VALUES {a}"}, want: "a"},
	{name: "foreign keys that cascade", run: []string{"CREATE TABLE parent (id VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin PRIMARY KEY) ENGINE=InnoDB",
		"ALTER TABLE outbox ADD CONSTRAINT k FOREIGN KEY (aggregate_id) REFERENCES parent (id) ON DELETE CASCADE ON UPDATE CASCADE",
		"INSERT INTO parent VALUES ('1'),('2')", "INSERT INTO outbox VALUES {a},{b}", "UPDATE parent SET id = '3' WHERE id = '1'", "DELETE FROM parent WHERE id = '3'",
		"ALTER TABLE outbox DROP FOREIGN KEY k"}, want: "a b", changed: "a", updates: either},
	{name: "a name in another case", run: []string{"CREATE TABLE OUTBOX2 LIKE outbox", "INSERT INTO OUTBOX2 VALUES {b}", "INSERT INTO outbox VALUES {a}"}, want: "a"},

	// What is written over, changed and deleted.
	{name: "REPLACE of a new row", run: []string{"REPLACE INTO outbox VALUES {a}"}, want: "a"},
	{name: "REPLACE of an old row", run: []string{"INSERT INTO outbox VALUES {a}", "REPLACE INTO outbox VALUES {a}"}, want: "a", changed: "a", updates: 1},
	{name: "REPLACE of an old row whose delete is seen by a trigger", run: []string{"CREATE TRIGGER t BEFORE DELETE ON outbox FOR EACH ROW SET @a = 1",
		"INSERT INTO outbox VALUES {a}", "REPLACE INTO outbox VALUES {a}"}, want: "a a"},
	{name: "REPLACE that hits a further unique key", run: []string{"ALTER TABLE outbox ADD UNIQUE u (aggregate_id)", "INSERT INTO outbox VALUES {a}",
		"REPLACE INTO outbox SELECT 'b', aggregate_type, aggregate_id, 2, type, payload, headers, created_at FROM outbox"}, want: "a b", updates: 1},
	{name: "REPLACE that hits two rows", run: []string{"ALTER TABLE outbox ADD UNIQUE u (aggregate_id)", "INSERT INTO outbox VALUES {a},{b}",
		"REPLACE INTO outbox SELECT 'a', aggregate_type, aggregate_id, 3, type, payload, headers, created_at FROM outbox WHERE id = 'b'"}, want: "a b a", updates: 1},
	{name: "ON DUPLICATE KEY UPDATE of a new row", run: []string{"INSERT INTO outbox VALUES {a} ON DUPLICATE KEY UPDATE type = 'Changed'"}, want: "a"},
	{name: "ON DUPLICATE KEY UPDATE of an old row", run: []string{"INSERT INTO outbox VALUES {a}",
		"INSERT INTO outbox VALUES {a},{b} ON DUPLICATE KEY UPDATE type = 'Changed'"}, want: "a b", changed: "a", updates: 1},
	{name: "ON DUPLICATE KEY UPDATE that gives a new id", run: []string{"INSERT INTO outbox VALUES {a}",
		"INSERT INTO outbox VALUES {a} ON DUPLICATE KEY UPDATE id = 'b'"}, want: "a b", updates: 1},
	{name: "an update", run: []string{"INSERT INTO outbox VALUES {a},{b}", "UPDATE outbox SET type = 'Changed'"}, want: "a b", changed: "a b", updates: 2},
	{name: "an update of the id", run: []string{"INSERT INTO outbox VALUES {a},{b}", "UPDATE outbox SET id = CONCAT(id, '2') ORDER BY id DESC"}, want: "a b b2 a2", updates: 2},
	{name: "an update with a partial image", run: []string{"INSERT INTO outbox VALUES {a}", "SET binlog_row_image=MINIMAL", "UPDATE outbox SET type = 'Changed'",
		"SET binlog_row_image=FULL", "INSERT INTO outbox VALUES {b}"}, want: "a b", changed: "a", updates: 1},
	{name: "a delete", run: []string{"INSERT INTO outbox VALUES {a},{b}", "DELETE FROM outbox WHERE id = 'a'"}, want: "a b"},
	{name: "a delete with a partial image", run: []string{"INSERT INTO outbox VALUES {a}", "SET binlog_row_image=MINIMAL", "DELETE FROM outbox", "SET binlog_row_image=FULL"}, want: "a"},
	{name: "a delete that was logged as a statement", run: []string{"INSERT INTO outbox VALUES {a}", "SET binlog_format=STATEMENT", "DELETE FROM outbox", "SET binlog_format=ROW"}, want: "a"},
	{name: "TRUNCATE", run: []string{"INSERT INTO outbox VALUES {a}", "TRUNCATE outbox", "INSERT INTO outbox VALUES {b}"}, want: "a b"},
	{name: "an insert and a delete in one transaction", run: []string{"BEGIN", "INSERT INTO outbox VALUES {a},{b}", "DELETE FROM outbox", "COMMIT"}, want: "a b"},
	{name: "insert, delete and insert in one transaction", run: []string{"BEGIN", "INSERT INTO outbox VALUES {a}", "DELETE FROM outbox", "INSERT INTO outbox VALUES {b}", "COMMIT"}, want: "a b"},

	// What is rolled back.
	{name: "a rollback", run: []string{"BEGIN", "INSERT INTO outbox VALUES {a}", "ROLLBACK", "INSERT INTO outbox VALUES {b}"}, want: "b"},
	{name: "a statement that fails", run: []string{"INSERT INTO outbox VALUES {a}", "BEGIN", "INSERT INTO outbox VALUES {b}", "!INSERT INTO outbox VALUES {c},{a}", "COMMIT"}, want: "a b"},
	{name: "rows that the check refuses", run: []string{"!INSERT INTO outbox VALUES ('x','c','1',1,'T','not json',NULL,'2026-01-01')", "INSERT INTO outbox VALUES {a}"}, want: "a"},
	{name: "a rollback to a savepoint", run: []string{"BEGIN", "INSERT INTO outbox VALUES {a}", "SAVEPOINT s", "INSERT INTO outbox VALUES {b}", "ROLLBACK TO s",
		"INSERT INTO outbox VALUES {c}", "COMMIT"}, want: "a c"},
	{name: "a released savepoint", run: []string{"BEGIN", "SAVEPOINT s", "INSERT INTO outbox VALUES {a}", "RELEASE SAVEPOINT s", "INSERT INTO outbox VALUES {b}", "COMMIT"}, want: "a b"},
	{name: "a rollback after a temporary table", run: []string{"BEGIN", "INSERT INTO outbox VALUES {a}", "CREATE TEMPORARY TABLE tmp (a INT)", "ROLLBACK",
		"DROP TEMPORARY TABLE IF EXISTS tmp", "INSERT INTO outbox VALUES {b}"}, want: "b", free: true},
	{name: "a rollback to a savepoint after a temporary table", run: []string{"BEGIN", "INSERT INTO outbox VALUES {a}", "CREATE TEMPORARY TABLE tmp (a INT)",
		"SAVEPOINT `s`", "INSERT INTO outbox VALUES {b}", "ROLLBACK TO S", "INSERT INTO outbox VALUES {c}", "COMMIT", "DROP TEMPORARY TABLE tmp"}, want: "a c", free: true},
	{name: "a rollback to a savepoint around a table without transactions", run: []string{noTransactions, "BEGIN", "INSERT INTO outbox VALUES {a}", "SAVEPOINT s",
		"INSERT INTO outbox VALUES {b}", "INSERT INTO plain VALUES (1)", "ROLLBACK TO s", "INSERT INTO outbox VALUES {c}", "COMMIT"}, want: "a c", free: true},
	{name: "savepoints in each other, one name used twice", run: []string{noTransactions, "BEGIN", "INSERT INTO outbox VALUES {a}", "SAVEPOINT s",
		"INSERT INTO outbox VALUES {b}", "INSERT INTO plain VALUES (1)", "SAVEPOINT t", "INSERT INTO outbox VALUES {c}", "SAVEPOINT s", "INSERT INTO outbox VALUES {d}",
		"ROLLBACK TO s", "INSERT INTO outbox VALUES {e}", "ROLLBACK TO t", "INSERT INTO outbox VALUES {f}", "COMMIT"}, want: "a b f", free: true},
	{name: "a rollback around a trigger on a table without transactions", run: []string{noTransactions, "CREATE TABLE orders (a INT)",
		"CREATE TRIGGER t AFTER INSERT ON orders FOR EACH ROW INSERT INTO plain VALUES (1)",
		"BEGIN", "INSERT INTO outbox VALUES {a}", "INSERT INTO orders VALUES (1)", "INSERT INTO outbox VALUES {b}", "ROLLBACK", "INSERT INTO outbox VALUES {c}"}, want: "c", free: true},
	{name: "a table without transactions in a transaction", run: []string{noTransactions, "BEGIN", "INSERT INTO plain VALUES (1)",
		"INSERT INTO outbox VALUES {a}", "INSERT INTO plain VALUES (2)", "COMMIT"}, want: "a", free: true},

	// What is too large to be held until its end, so that it is read twice.
	{name: "a large transaction", run: []string{"INSERT INTO outbox VALUES {a}", "BEGIN", "INSERT INTO outbox VALUES {huge*12}", "INSERT INTO outbox VALUES {b}", "COMMIT",
		"INSERT INTO outbox VALUES {c}"}, want: "a " + rowNames("huge", 12) + " b c"},
	{name: "a large transaction that is rolled back", run: []string{noTransactions, "BEGIN", "INSERT INTO outbox VALUES {huge*12}", "INSERT INTO plain VALUES (1)", "CREATE TEMPORARY TABLE tmp (a INT)",
		"ROLLBACK", "DROP TEMPORARY TABLE IF EXISTS tmp", "INSERT INTO outbox VALUES {a}"}, want: "a", free: true},
	{name: "a large transaction that is partly rolled back", run: []string{noTransactions, "BEGIN", "INSERT INTO outbox VALUES {a}", "SAVEPOINT s", "INSERT INTO outbox VALUES {b}",
		"INSERT INTO plain VALUES (1)", "ROLLBACK TO s", "INSERT INTO outbox VALUES {huge*6}", "SAVEPOINT s", "INSERT INTO outbox VALUES {huger*6}", "INSERT INTO plain VALUES (1)", "ROLLBACK TO s",
		"INSERT INTO outbox VALUES {c}", "COMMIT"}, want: "a " + rowNames("huge", 6) + " c", free: true},
	{name: "a large transaction under XA", run: []string{"XA START 'x'", "INSERT INTO outbox VALUES {huge*12}", "XA END 'x'", "XA PREPARE 'x'", "XA COMMIT 'x'"}, halts: relay.XAUnsupported},
	{name: "a large row", run: []string{"INSERT INTO outbox VALUES {immense}", "INSERT INTO outbox VALUES {a}"}, want: "immense a"},

	// DDL and sessions.
	{name: "CREATE TABLE ... SELECT of another table", run: []string{"INSERT INTO outbox VALUES {a}", "CREATE TABLE copy AS SELECT * FROM outbox", "INSERT INTO outbox VALUES {b}"}, want: "a b"},
	{name: "DDL that commits", run: []string{"BEGIN", "INSERT INTO outbox VALUES {a}", "CREATE TABLE other (a INT)", "ROLLBACK", "INSERT INTO outbox VALUES {b}"}, want: "a b"},
	{name: "a temporary table of the same name", run: []string{"CREATE TEMPORARY TABLE outbox (a INT)", "INSERT INTO outbox VALUES (1)", "DROP TEMPORARY TABLE outbox",
		"INSERT INTO outbox VALUES {a}"}, want: "a"},
	{name: "the statements' text in the binlog", only: stack.FlavorMySQL, run: []string{"SET binlog_rows_query_log_events=ON", "INSERT INTO outbox VALUES {a}", "SET binlog_rows_query_log_events=OFF"}, want: "a"},
	{name: "a session's time zone and clock", run: []string{"SET time_zone='-07:00'", "SET timestamp=1234567890.5", "INSERT INTO outbox VALUES {a}", "SET timestamp=DEFAULT",
		"SET time_zone=DEFAULT"}, want: "a"},
	{name: "a session's sql_mode", run: []string{"SET sql_mode='ANSI_QUOTES,NO_BACKSLASH_ESCAPES'", "BEGIN", `SAVEPOINT "s""t"`, "INSERT INTO outbox VALUES {a}", `ROLLBACK TO "s""t"`,
		"INSERT INTO outbox VALUES {b}", "COMMIT", "SET sql_mode=DEFAULT"}, want: "b"},
	{name: "tagged GTIDs", only: stack.FlavorMySQL, run: []string{"?SET gtid_next='AUTOMATIC:tailbox'", "INSERT INTO outbox VALUES {a}", "?SET gtid_next='AUTOMATIC'", "INSERT INTO outbox VALUES {b}"}, want: "a b"},
	{name: "GTIDs of another domain", only: stack.FlavorMariaDB, run: []string{"SET gtid_domain_id=7", "INSERT INTO outbox VALUES {a}", "SET gtid_domain_id=0", "INSERT INTO outbox VALUES {b}"}, want: "a b"},
	{name: "XA in one phase", run: []string{"XA START 'x'", "INSERT INTO outbox VALUES {a}", "XA END 'x'", "XA COMMIT 'x' ONE PHASE", "INSERT INTO outbox VALUES {b}"}, want: "a b"},
	{name: "XA that is rolled back before it is prepared", run: []string{"XA START 'x'", "INSERT INTO outbox VALUES {a}", "XA END 'x'", "XA ROLLBACK 'x'", "INSERT INTO outbox VALUES {b}"}, want: "b"},
	{name: "XA of other tables", run: []string{"CREATE TABLE other (a INT)", "XA START 'x'", "INSERT INTO other VALUES (1)", "XA END 'x'", "XA PREPARE 'x'", "XA COMMIT 'x'", "INSERT INTO outbox VALUES {a}"}, want: "a"},
	{name: "another table's change as a statement", run: []string{"CREATE TABLE other (id CHAR(36))", "SET binlog_format=STATEMENT", "INSERT INTO other SELECT id FROM outbox", "UPDATE other SET id = 'x'",
		"SET binlog_format=ROW", "INSERT INTO outbox VALUES {a}"}, want: "a"},
	{name: "another table's change as a statement with variables and random numbers", run: []string{"CREATE TABLE other (id VARCHAR(36), n INT AUTO_INCREMENT PRIMARY KEY)", "SET binlog_format=STATEMENT",
		"INSERT INTO other (id) VALUES (RAND())", "SET @x = 'x'", "UPDATE other SET id = @x", "SET binlog_format=ROW", "INSERT INTO outbox VALUES {a}"}, want: "a"},
	{name: "another table's LOAD DATA as a statement in many blocks", run: []string{"CREATE TABLE other LIKE outbox", "SET binlog_format=STATEMENT",
		"LOAD DATA LOCAL INFILE 'Reader::rows' INTO TABLE other", "SET binlog_format=ROW", "INSERT INTO outbox VALUES {a}"}, want: "a"},

	// What is not safe.
	{name: "an insert that was logged as a statement", run: []string{"INSERT INTO outbox VALUES {a}", "SET binlog_format=STATEMENT", "INSERT INTO outbox VALUES {b}"}, want: "a", halts: relay.NotRowLogged},
	{name: "a REPLACE that was logged as a statement", run: []string{"SET binlog_format=STATEMENT", "REPLACE /* x */ INTO `outbox` VALUES {b}"}, halts: relay.NotRowLogged},
	{name: "an update that was logged as a statement", run: []string{"INSERT INTO outbox VALUES {a}", "SET binlog_format=STATEMENT", "UPDATE outbox SET id = 'b'"}, want: "a", halts: relay.NotRowLogged},
	{name: "an update with a variable that was logged as a statement", run: []string{"INSERT INTO outbox VALUES {a}", "SET binlog_format=STATEMENT", "SET @x = 'b'", "UPDATE outbox SET id = @x"}, want: "a", halts: relay.NotRowLogged},
	{name: "an insert of random numbers that was logged as a statement", run: []string{"SET binlog_format=STATEMENT",
		"INSERT INTO outbox SELECT RAND(), 'c', '1', 1, 'T', '{}', NULL, '2026-01-02'"}, halts: relay.NotRowLogged},
	{name: "LOAD DATA that was logged as a statement", run: []string{"SET binlog_format=STATEMENT", "LOAD DATA LOCAL INFILE 'Reader::rows' INTO TABLE outbox"}, halts: relay.NotRowLogged},
	{name: "a procedure in a session that logs statements", run: []string{"CREATE PROCEDURE p() INSERT INTO outbox VALUES {a}", "SET binlog_format=STATEMENT", "CALL p()"}, halts: relay.NotRowLogged},
	{name: "a function in a session that logs statements", run: []string{"CREATE FUNCTION f() RETURNS INT DETERMINISTIC MODIFIES SQL DATA BEGIN INSERT INTO outbox VALUES {a}; RETURN 1; END", "SET binlog_format=STATEMENT", "DO f()"}, halts: relay.NotRowLogged},
	{name: "a minimal row image", run: []string{"INSERT INTO outbox VALUES {a}", "SET binlog_row_image=MINIMAL",
		"INSERT INTO outbox (id, aggregate_type, aggregate_id, aggregate_version, type, payload, created_at) VALUES ('b', 'c', '1', 1, 'T', '{}', '2026-01-02')"}, want: "a", halts: relay.NotRowLogged},
	{name: "a row image without a column", run: []string{"INSERT INTO outbox VALUES {a}", "ALTER TABLE outbox DROP CONSTRAINT outbox_payload_is_json", "SET sql_mode=''", "SET binlog_row_image=MINIMAL",
		"INSERT INTO outbox () VALUES ()"}, want: "a", halts: relay.NotRowLogged},
	{name: "a partial update of JSON", only: stack.FlavorMySQL, run: []string{"ALTER TABLE outbox MODIFY payload JSON NOT NULL", "INSERT INTO outbox VALUES {a}", "SET binlog_row_value_options=PARTIAL_JSON",
		"UPDATE outbox SET payload = JSON_SET(payload, '$.n', 'y'), id = 'b'"}, want: "a", halts: relay.NotRowLogged},
	{name: "XA that is committed", run: []string{"INSERT INTO outbox VALUES {a}", "XA START 'x'", "INSERT INTO outbox VALUES {b}", "XA END 'x'", "XA PREPARE 'x'", "XA COMMIT 'x'"}, want: "a", halts: relay.XAUnsupported},
	{name: "XA that is rolled back", run: []string{"XA START 'x'", "INSERT INTO outbox VALUES {b}", "XA END 'x'", "XA PREPARE 'x'", "XA ROLLBACK 'x'"}, halts: relay.XAUnsupported},
}

// rowNames are the ids that {id*n} makes.
func rowNames(id string, n int) string {
	var names []string
	for i := range n {
		names = append(names, rowName(id, i))
	}
	return strings.Join(names, " ")
}
