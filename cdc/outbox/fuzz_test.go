package outbox_test

import (
	"strings"
	"testing"
	"time"

	"tailbox/cdc/outbox"
)

// FuzzRow reads rows of any columns and values, each as the binlog or a SELECT may give it: no panic, no error that holds a
// value, and an event that keeps the bytes.
func FuzzRow(f *testing.F) {
	const columns = "id,aggregate_type,aggregate_id,type,payload,aggregate_version,headers,created_at,extra"
	f.Add(columns, "id-1\x00customer\x00a1\x00T\x00{\"a\":1}\x003\x00{\"x\":\"y\",\"n\":1}\x002026-11-23 12:30:15.123456\x00", []byte{0, 0, 0, 0, 1, 0, 1, 0, 4})
	f.Add("id,aggregatetype,aggregateid,type,payload", "id-1\x00c\x007\x00T\x00{}", []byte{0, 1, 2, 0, 1})
	f.Add(columns, "\x00\x00\x00\x00\x00-1\x00[]\x000000-00-00 00:00:00\x00", []byte{0, 0, 3, 0, 4, 5, 1, 0, 6})
	f.Fuzz(func(t *testing.T, columns, texts string, kinds []byte) {
		names := strings.Split(columns, ",")
		m, err := outbox.NewMapping(names)
		if err != nil {
			return
		}
		parts := strings.Split(texts, "\x00")
		values := make([]any, len(names))
		for i := range values {
			text, kind := "", byte(0)
			if i < len(parts) {
				text = parts[i]
			}
			if i < len(kinds) {
				kind = kinds[i]
			}
			values[i] = value(text, kind)
		}
		e, err := m.Event(values, time.Unix(0, 0))
		if err != nil {
			for _, secret := range parts {
				if len(secret) > 24 && !strings.Contains(columns, secret) && strings.Contains(err.Error(), secret) {
					t.Fatalf("the error holds a value: %v", err)
				}
			}
			return
		}
		if payload, ok := m.Column("payload"); ok {
			for i, name := range names {
				if name == payload {
					if text, isText := values[i].(string); isText && text != string(e.Payload) {
						t.Fatalf("the payload %q became %q", text, e.Payload)
					}
					break
				}
			}
		}
	})
}

// value is a text as one of the types that a column's value can have.
func value(text string, kind byte) any {
	n := int64(len(text)) - 2
	switch kind % 13 {
	case 1:
		return []byte(text)
	case 2:
		return n
	case 3:
		return uint64(n)
	case 4:
		return nil
	case 5:
		return int32(n)
	case 6:
		return uint32(n)
	case 7:
		return time.Unix(n, 1000)
	case 8:
		return int8(n)
	case 9:
		return float64(n) / 3
	case 10:
		return []byte(nil)
	case 11:
		return uint8(n)
	case 12:
		return true
	}
	return text
}
