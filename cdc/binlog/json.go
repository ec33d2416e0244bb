package binlog

import (
	"strconv"
	"strings"

	"github.com/go-mysql-org/go-mysql/mysql"
	"github.com/go-mysql-org/go-mysql/replication"
)

// serverTexts gives the JSON columns of a row the text that a SELECT gives them, so that an event has the same bytes whether it
// comes from the binlog or, in a snapshot or a repair, from the table. In the binlog a document is in a binary form.
func serverTexts(t *replication.TableMapEvent, image []any) {
	for i, kind := range t.ColumnType {
		if kind != mysql.MYSQL_TYPE_JSON || i >= len(image) {
			continue
		}
		if text, ok := image[i].(string); ok {
			image[i] = serverJSON(text)
		}
	}
}

// serverJSON turns go-mysql's rendering of a document into the server's: a space behind each comma and colon, characters as
// they are where Go escapes them for HTML, and doubles as the server writes them.
func serverJSON(text string) string {
	var b strings.Builder
	b.Grow(len(text) + len(text)/8)
	for len(text) > 0 {
		n := 1
		switch c := text[0]; {
		case c == '"':
			n = stringLength(text)
			b.WriteString(unescaped.Replace(text[:n]))
		case c == ',' || c == ':':
			b.WriteByte(c)
			b.WriteByte(' ')
		case c == '-' || c >= '0' && c <= '9':
			if n = strings.IndexAny(text, ",]}"); n < 0 {
				n = len(text)
			}
			b.WriteString(serverNumber(text[:n]))
		default:
			b.WriteByte(c)
		}
		text = text[n:]
	}
	return b.String()
}

// stringLength is how long the string at the front of a text is, quotes included.
func stringLength(text string) int {
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(text)
}

// unescaped undoes what Go escapes and the server does not. An escaped backslash is passed over as a whole.
var unescaped = strings.NewReplacer(`\\`, `\\`, `\u003c`, "<", `\u003e`, ">", `\u0026`, "&", `\u2028`, "\u2028", `\u2029`, "\u2029")

// serverNumber writes a double as the server does: in full as long as there are at most 15 digits before the point, or some
// behind it, and at most 14 zeros right behind it; else with an exponent that has no sign and no zeros before it. Integers and
// decimals stay as they are.
func serverNumber(text string) string {
	exponential := strings.ContainsAny(text, "eE")
	if !exponential && !strings.Contains(text, ".") {
		return text
	}
	x, err := strconv.ParseFloat(text, 64)
	isDouble := exponential || text == strconv.FormatFloat(x, 'f', -1, 64) || text == strconv.FormatFloat(x, 'f', 1, 64)
	if err != nil || !isDouble {
		return text // a decimal, whose zeros at the end count
	}
	const fullDigits = 15
	scientific := strconv.FormatFloat(x, 'e', -1, 64)
	mantissa, exponent, _ := strings.Cut(scientific, "e")
	power, err := strconv.Atoi(exponent)
	digits := len(strings.TrimLeft(mantissa, "-")) - strings.Count(mantissa, ".")
	if point := power + 1; err != nil || point > max(fullDigits, digits-1) || point < 1-fullDigits {
		return mantissa + "e" + strconv.Itoa(power)
	}
	full := strconv.FormatFloat(x, 'f', -1, 64)
	if !strings.Contains(full, ".") {
		full += ".0"
	}
	return full
}
