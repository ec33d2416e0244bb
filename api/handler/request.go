package handler

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/gin-gonic/gin"

	"tailbox/deploy/ops"
)

// fields is a request's body: the JSON text of each value that was given.
type fields map[string]json.RawMessage

// readFields reads a body that must be one JSON object with no other names than those allowed.
func readFields(c *gin.Context, allowed ...string) (fields, error) {
	if err := mustBeJSON(c.GetHeader("Content-Type")); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(c.Request.Body)
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, refused(http.StatusRequestEntityTooLarge, "too_large", "The body has more than "+decimal(tooLarge.Limit)+" bytes.")
	}
	if err != nil {
		return nil, refused(http.StatusBadRequest, "not_read", "The body ended early or came too slowly.")
	}
	return parseFields(body, allowed)
}

func mustBeJSON(contentType string) error {
	if contentType == "" {
		return nil
	}
	kind, _, err := mime.ParseMediaType(contentType)
	if err == nil && (kind == "application/json" || strings.HasPrefix(kind, "application/") && strings.HasSuffix(kind, "+json")) {
		return nil
	}
	return refused(http.StatusUnsupportedMediaType, "not_json_type", "Send application/json, or no Content-Type at all.")
}

var errNotJSON = refused(http.StatusBadRequest, "not_json", "The body is not one JSON text in UTF-8.")

// parseFields is stricter than json.Unmarshal, which takes "EMAIL" for email, the last of two equal names, and bytes that
// are not UTF-8.
func parseFields(body []byte, allowed []string) (fields, error) {
	if !utf8.Valid(body) || !json.Valid(body) {
		return nil, errNotJSON
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	if opening, _ := decoder.Token(); opening != json.Delim('{') {
		return nil, refused(http.StatusBadRequest, "not_an_object", "The body is not a JSON object.")
	}
	found := make(fields, len(allowed))
	for decoder.More() {
		token, err := decoder.Token()
		if err != nil {
			return nil, errNotJSON
		}
		name, _ := token.(string)
		var value json.RawMessage
		if err := decoder.Decode(&value); err != nil {
			return nil, errNotJSON
		}
		if _, twice := found[name]; twice {
			return nil, refused(http.StatusBadRequest, "field_twice", "A field is given twice.", ops.FieldError{Field: name, Detail: "is given twice"})
		}
		if !slices.Contains(allowed, name) {
			return nil, refused(http.StatusBadRequest, "unknown_field", "The body has a field that is not known; the known ones are "+
				strings.Join(allowed, ", ")+".", ops.FieldError{Field: shortened(name), Detail: "is not known"})
		}
		found[name] = value
	}
	return found, nil
}

// shortened keeps an answer small when it names what the client made up.
func shortened(name string) string {
	const most = 64
	if runes := []rune(name); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return name
}
