package publish

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"tailbox/schema"
)

// Template makes a text for each event from the event's fields in braces, such as {aggregate_type}.{type}.
type Template struct{ parts []part }

// part is a literal, or a field when get is set.
type part struct {
	literal string
	get     func(e *schema.Event) string
}

// fields are what braces may enclose, besides header.NAME for one of the event's own headers, empty when it has none.
var fields = map[string]func(e *schema.Event) string{
	"id":                func(e *schema.Event) string { return e.ID },
	"aggregate_type":    func(e *schema.Event) string { return e.AggregateType },
	"aggregate_id":      func(e *schema.Event) string { return e.AggregateID },
	"aggregate_version": func(e *schema.Event) string { return strconv.FormatUint(e.AggregateVersion, 10) },
	"type":              func(e *schema.Event) string { return e.Type },
	"created_at":        func(e *schema.Event) string { return e.CreatedAt.UTC().Format(schema.TimeFormat) },
}

// ParseTemplate reads a template and tries it on a sample event.
func ParseTemplate(text string) (Template, error) {
	var t Template
	for rest := text; rest != ""; {
		literal, tail, found := strings.Cut(rest, "{")
		if literal != "" {
			t.parts = append(t.parts, part{literal: literal})
		}
		if !found {
			break
		}
		name, after, closed := strings.Cut(tail, "}")
		get := fields[name]
		if header, ok := strings.CutPrefix(name, "header."); ok && header != "" {
			get = func(e *schema.Event) string { return e.Headers[header] }
		}
		if !closed || get == nil {
			return Template{}, fmt.Errorf("%q: braces enclose one of id, aggregate_type, aggregate_id, aggregate_version, type, "+
				"created_at and header.NAME", text)
		}
		t.parts = append(t.parts, part{get: get})
		rest = after
	}
	if len(t.parts) == 0 {
		return Template{}, errors.New("the template is empty")
	}
	sample := schema.Event{ID: schema.NewID(), AggregateType: "customer", AggregateID: schema.NewID(), AggregateVersion: 1,
		Type: "CustomerCreated", CreatedAt: time.Now()}
	if n := len(t.For(&sample)); n > maxShortString {
		return Template{}, fmt.Errorf("%q: it makes %d bytes of a sample event, AMQP allows %d", text, n, maxShortString)
	}
	return t, nil
}

// Fixed is the text of a template without fields; false when it has any.
func (t Template) Fixed() (text string, fixed bool) {
	for _, p := range t.parts {
		if p.get != nil {
			return "", false
		}
		text += p.literal
	}
	return text, true
}

// For is the template's text for an event.
func (t Template) For(e *schema.Event) string {
	if len(t.parts) == 1 && t.parts[0].get == nil {
		return t.parts[0].literal
	}
	var b strings.Builder
	for _, p := range t.parts {
		if p.get != nil {
			b.WriteString(p.get(e))
		} else {
			b.WriteString(p.literal)
		}
	}
	return b.String()
}
