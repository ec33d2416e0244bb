package topology

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Mismatch is the error for a queue or an exchange that is there and has a property that could lose messages or their order,
// or that the broker does not let us compare. Nothing was changed; who returns it tries again, and goes on when it is mended.
type Mismatch struct {
	Kind     string // queue or exchange
	Name     string
	Property string // as the broker calls it: durable, type, x-queue-type ...
	Found    string // what it has; "none" when the argument is missing
	Needed   string
	err      error
}

// Error says what is wrong, what it costs and what mends it.
func (m *Mismatch) Error() string {
	return m.Problem() + ". To mend it, " + m.Mend()
}

// Problem says what is wrong and what it costs.
func (m *Mismatch) Problem() string {
	return fmt.Sprintf("%s %q has %s %s and needs %s: %s", m.Kind, m.Name, m.Property, m.Found, m.Needed, m.cost())
}

// Mend says what mends it.
func (m *Mismatch) Mend() string {
	if m.Kind == "exchange" {
		return "note its bindings and delete it, then it is declared anew"
	}
	return "delete it once it is empty, then it is declared anew"
}

// Unwrap returns the broker's own words.
func (m *Mismatch) Unwrap() error { return m.err }

// costs say what a property would do to messages if it was lived with.
var costs = map[string]string{
	"durable":                   "it is gone when the broker restarts",
	"auto_delete":               "it is gone with the last that uses it",
	"internal":                  "nobody may publish to it",
	"type":                      "it does not route by topics",
	"x-queue-type":              "only a quorum queue keeps what it confirmed when a node is lost",
	"x-overflow":                "a limit on its length would drop messages instead of refusing them",
	"x-max-length":              "it would drop or refuse messages beyond that",
	"x-max-length-bytes":        "it would drop or refuse messages beyond that",
	"x-message-ttl":             "messages would vanish with time, or come back at another time",
	"x-expires":                 "it would vanish while nobody uses it",
	"x-dead-letter-exchange":    "what it gives up on would vanish",
	"x-dead-letter-routing-key": "what it gives up on would go elsewhere",
	"x-dead-letter-strategy":    "what it gives up on could be lost on the way",
	"x-delivery-limit":          "messages would be given up on after another number of deliveries",
	"x-single-active-consumer":  "several consumers at once would break the order per aggregate",
}

func (m *Mismatch) cost() string {
	if cost := costs[m.Property]; cost != "" {
		return cost
	}
	return "it was declared for something else"
}

// said is what a broker says of a declaration that differs. A long name can cut off its end.
var said = regexp.MustCompile(`inequivalent arg '([^']+)' for (queue|exchange) .*: received (.+) but current is (.+)$`)

// declared makes a *Mismatch of the broker's no to a declaration, and wraps any other error.
func declared(kind, name string, err error) error {
	if err == nil {
		return nil
	}
	refused, ok := errors.AsType[*amqp.Error](err)
	if !ok || refused.Code != amqp.PreconditionFailed {
		return fmt.Errorf("declare %s %q: %w", kind, name, err)
	}
	m := &Mismatch{Kind: kind, Name: name, Property: "other properties", Found: "that cannot be compared", Needed: "its own", err: err}
	if parts := said.FindStringSubmatch(refused.Reason); parts != nil {
		m.Property, m.Needed, m.Found = parts[1], value(parts[3]), value(parts[4])
	}
	return m
}

// value takes "the value 'quorum' of type 'longstr'" or "'true'" for what is between the first quotes.
func value(text string) string {
	if _, rest, quoted := strings.Cut(text, "'"); quoted {
		text, _, _ = strings.Cut(rest, "'")
	}
	if text == "" {
		return `""`
	}
	return text
}
