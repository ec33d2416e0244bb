// Package outbox turns the image of an outbox row into a schema.Event. It is pure: no I/O, no state beyond the column
// names that a Mapping was made for.
//
// It knows two spellings of the columns, Tailbox's own and Debezium's (aggregatetype, aggregateid), so that a table made
// for the outbox event router is read as it is.
package outbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"tailbox/schema"
)

// columns of an outbox table, by their two spellings; required ones first.
const (
	colID = iota
	colAggregateType
	colAggregateID
	colType
	colPayload
	colAggregateVersion
	colHeaders
	colCreatedAt
	numColumns
	numRequired = colPayload + 1
)

var spellings = [numColumns][]string{
	colID:               {"id"},
	colAggregateType:    {"aggregate_type", "aggregatetype"},
	colAggregateID:      {"aggregate_id", "aggregateid"},
	colType:             {"type"},
	colPayload:          {"payload"},
	colAggregateVersion: {"aggregate_version", "aggregateversion"},
	colHeaders:          {"headers"},
	colCreatedAt:        {"created_at", "createdat"},
}

// Mapping says where each field of an event is in a row image. It belongs to one list of column names, which the binlog
// gives with each table map, so an ALTER TABLE can never shift columns. It is safe for concurrent use.
type Mapping struct {
	names []string
	index [numColumns]int // -1: the table has no such column
}

// NewMapping finds the event's columns among the names, whatever their order and case. It is an error, naming the columns,
// when required ones are missing.
func NewMapping(names []string) (*Mapping, error) {
	m := &Mapping{names: slices.Clone(names)}
	var missing []string
	for column, spelled := range spellings {
		m.index[column] = slices.IndexFunc(names, func(name string) bool {
			return slices.Contains(spelled, strings.ToLower(name))
		})
		if m.index[column] < 0 && column < numRequired {
			missing = append(missing, strings.Join(spelled, " or "))
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("the outbox table lacks the column %s; it has %s", strings.Join(missing, ", "), strings.Join(names, ", "))
	}
	return m, nil
}

// Fits tells whether the mapping was made for exactly these column names.
func (m *Mapping) Fits(names []string) bool { return slices.Equal(m.names, names) }

// Column is the name that the table gives to a column of Tailbox's outbox, such as aggregate_type; false if it has none.
func (m *Mapping) Column(name string) (string, bool) {
	for column, spelled := range spellings {
		if spelled[0] == name && m.index[column] >= 0 {
			return m.names[m.index[column]], true
		}
	}
	return "", false
}

// Event reads one row image: a value per column, as go-mysql or database/sql decode them (strings, bytes, integers,
// times, nil). fallback is the event's time where the table has no created_at. The event keeps no reference to the image.
// An error names the column and never contains a value.
func (m *Mapping) Event(values []any, fallback time.Time) (schema.Event, error) {
	if len(values) != len(m.names) {
		return schema.Event{}, fmt.Errorf("the row has %d columns, the table map %d", len(values), len(m.names))
	}
	var errs []error
	text := func(column int) string {
		s, err := asString(m.value(values, column))
		if err != nil {
			errs = append(errs, fmt.Errorf("column %s: %w", m.names[m.index[column]], err))
		}
		return s
	}

	e := schema.Event{
		ID:            text(colID),
		AggregateType: text(colAggregateType),
		AggregateID:   text(colAggregateID),
		Type:          text(colType),
		CreatedAt:     fallback,
	}
	payload, err := asBytes(m.value(values, colPayload))
	if err != nil {
		errs = append(errs, fmt.Errorf("column %s: %w", m.names[m.index[colPayload]], err))
	}
	e.Payload = payload
	if v := m.value(values, colAggregateVersion); v != nil {
		if e.AggregateVersion, err = asUint(v); err != nil {
			errs = append(errs, fmt.Errorf("column %s: %w", m.names[m.index[colAggregateVersion]], err))
		}
	}
	if v := m.value(values, colHeaders); v != nil {
		if e.Headers, err = asHeaders(v); err != nil {
			errs = append(errs, fmt.Errorf("column %s: %w", m.names[m.index[colHeaders]], err))
		}
	}
	if v := m.value(values, colCreatedAt); v != nil {
		if e.CreatedAt, err = asTime(v); err != nil {
			errs = append(errs, fmt.Errorf("column %s: %w", m.names[m.index[colCreatedAt]], err))
		}
	}
	return e, errors.Join(errs...)
}

// SameID tells whether two images of a row, before and after an update, have the same id. One that leaves the id out has
// not changed it.
func (m *Mapping) SameID(before, after []any) bool {
	if m.value(after, colID) == nil {
		return true
	}
	b, errBefore := asString(m.value(before, colID))
	a, errAfter := asString(m.value(after, colID))
	return errBefore == nil && errAfter == nil && a == b
}

func (m *Mapping) value(values []any, column int) any {
	if m.index[column] < 0 {
		return nil
	}
	return values[m.index[column]]
}

func asString(v any) (string, error) {
	switch v := v.(type) {
	case string:
		return strings.Clone(v), nil // a decoded string keeps its whole packet alive
	case []byte:
		return string(v), nil
	case nil:
		return "", errors.New("is NULL")
	case int64:
		return strconv.FormatInt(v, 10), nil
	case uint64:
		return strconv.FormatUint(v, 10), nil
	case int32:
		return strconv.FormatInt(int64(v), 10), nil
	case uint32:
		return strconv.FormatUint(uint64(v), 10), nil
	}
	return "", fmt.Errorf("cannot be read as text from %T", v)
}

func asBytes(v any) ([]byte, error) {
	switch v := v.(type) {
	case []byte:
		return bytes.Clone(v), nil
	case string:
		return []byte(v), nil
	case nil:
		return nil, errors.New("is NULL")
	}
	return nil, fmt.Errorf("cannot be read as bytes from %T", v)
}

func asUint(v any) (uint64, error) {
	switch v := v.(type) {
	case uint64:
		return v, nil
	case int64: // without signedness in the metadata, an unsigned value above the half arrives as a negative one
		return uint64(v), nil
	case uint32:
		return uint64(v), nil
	case int32:
		return uint64(uint32(v)), nil
	case []byte:
		return asUint(string(v))
	case string:
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			return 0, errors.New("is not a whole number") // the parser's own error quotes the value
		}
		return n, nil
	}
	return 0, fmt.Errorf("cannot be read as a whole number from %T", v)
}

// asHeaders reads a JSON object. Values that are not strings keep their JSON text.
func asHeaders(v any) (map[string]string, error) {
	text, err := asBytes(v)
	if err != nil || len(text) == 0 {
		return nil, err
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(text, &object) != nil {
		return nil, errors.New("is not a JSON object")
	}
	headers := make(map[string]string, len(object))
	for name, raw := range object {
		value := string(raw)
		if raw[0] == '"' {
			if json.Unmarshal(raw, &value) != nil {
				return nil, errors.New("is not a JSON object")
			}
		}
		headers[name] = value
	}
	return headers, nil
}

// asTime reads a DATETIME or TIMESTAMP as UTC.
func asTime(v any) (time.Time, error) {
	switch v := v.(type) {
	case time.Time:
		return v.UTC(), nil
	case string:
		t, err := time.Parse("2006-01-02 15:04:05.999999", v)
		if err != nil {
			return time.Time{}, errors.New("is not a date and time")
		}
		return t, nil
	case []byte:
		return asTime(string(v))
	}
	return time.Time{}, fmt.Errorf("cannot be read as a time from %T", v)
}
