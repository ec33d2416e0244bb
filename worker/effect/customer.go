package effect

import (
	"encoding/json"
	"unicode/utf8"

	"tailbox/schema"
)

// Limits of the table's columns, in characters.
const (
	maxID    = 36
	maxEmail = 320
	maxName  = 200
)

// customer is what an event's payload says about the customer. Unknown members are ignored: a later writer may add some.
type customer struct {
	ID    string  `json:"id"`
	Email *string `json:"email"`
	Name  *string `json:"name"`
}

// decode reads the payload and refuses what the table could not hold or what contradicts the message.
func decode(event schema.Event) (customer, error) {
	var c customer
	switch err := json.Unmarshal(event.Payload, &c); {
	case err != nil: // its text may quote the payload
		return customer{}, &RefusedError{Code: "payload_is_no_customer"}
	case c.ID != event.AggregateID:
		return customer{}, &RefusedError{Code: "payload_of_another_customer"}
	case !fits(c.ID):
		return customer{}, &RefusedError{Code: "customer_id_too_long_or_not_ascii"}
	case c.Email != nil && utf8.RuneCountInString(*c.Email) > maxEmail:
		return customer{}, &RefusedError{Code: "email_too_long"}
	case c.Name != nil && utf8.RuneCountInString(*c.Name) > maxName:
		return customer{}, &RefusedError{Code: "name_too_long"}
	}
	return c, nil
}

// complete refuses a payload that does not say all that a profile shows.
func (c customer) complete() error {
	if c.Email == nil || c.Name == nil {
		return &RefusedError{Code: "email_or_name_missing"}
	}
	return nil
}

// fits tells whether the tables can hold a customer of this id.
func fits(id string) bool { return id != "" && len(id) <= maxID && ascii(id) }

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}
