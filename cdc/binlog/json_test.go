package binlog_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"tailbox/cdc/binlog"
	"tailbox/cdc/relay"
)

// TestAJSONColumnHasTheSameBytesInTheBinlogAsInTheTable: else an event that a repair sends again would differ from the first.
func TestAJSONColumnHasTheSameBytesInTheBinlogAsInTheTable(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.exec("DROP TABLE outbox")
	b.exec("CREATE TABLE outbox (id INT NOT NULL PRIMARY KEY AUTO_INCREMENT, aggregatetype VARCHAR(255) NOT NULL, aggregateid VARCHAR(255) NOT NULL, " +
		"type VARCHAR(255) NOT NULL, payload JSON NOT NULL) CHARACTER SET utf8mb4")
	r := b.reader(binlog.StartLatest)
	r.Begin(relay.Position{})
	stream := follow(t, r)

	var numbers []string
	for range 300 {
		x := math.Float64frombits(rand.Uint64())
		if !math.IsNaN(x) && !math.IsInf(x, 0) {
			numbers = append(numbers, strconv.FormatFloat(x, 'e', -1, 64))
		}
		numbers = append(numbers, strconv.FormatFloat((rand.Float64()-0.5)*math.Pow10(rand.IntN(40)-20), 'e', -1, 64))
	}
	documents := []string{
		`'[1e300, 1.5e-10, 0.1, 123456789012345678, 18446744073709551615, -0.0, 1e14, 1e15, 1e16, 1e21, 1e-14, 1e-15, 1e-5, 123456.789, 5e-324, 1.7976931348623157e308, 100, 1e2, 3.0]'`,
		`'{"a\\"b,: c": "x, y: z\\\\", "u": "\\u0001\\u001f\\u007f\\u2028\\u2029/\\b\\f\\n\\r\\t<>&é\\\\u003c", "": {}, "e": [], "n": [[], {"x": [1, {"y": 2}]}]}'`,
		`JSON_ARRAY(CAST(1.10 AS DECIMAL(10,2)), CAST('2026-01-02 03:04:05.123' AS DATETIME(6)), TRUE, NULL)`,
		`'"s, : t"'`, `'null'`, `'3'`, `'{}'`,
		"'[" + strings.Join(numbers, ", ") + "]'",
	}
	for i, document := range documents {
		b.exec("INSERT INTO outbox (aggregatetype, aggregateid, type, payload) VALUES ('a', '1', 'T', " + document + ")")
		var text string
		require.NoError(t, b.db.QueryRowContext(t.Context(), "SELECT payload FROM outbox WHERE id = ?", i+1).Scan(&text))
		events := stream.until(fmt.Sprint(i + 1))
		require.Equal(t, text, string(events[i].Payload), document)
	}
}
