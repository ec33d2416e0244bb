package handler

import (
	"encoding/json"
	"net/http"
	"net/mail"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"tailbox/api/store"
	"tailbox/deploy/ops"
)

// Limits of a customer's values. They follow from the columns of the table.
const (
	maxEmailBytes = 320
	maxNameRunes  = 200
)

const (
	fieldEmail = "email"
	fieldName  = "name"
)

// change reads the values that were given, in the order of the fields, and names every one that is wrong.
func (f fields) change() (store.Change, []ops.FieldError) {
	var change store.Change
	var wrong []ops.FieldError
	for _, field := range []struct {
		name  string
		into  **string
		check func(value string) (string, string)
	}{
		{fieldEmail, &change.Email, checkEmail},
		{fieldName, &change.Name, checkName},
	} {
		raw, given := f[field.name]
		if !given {
			continue
		}
		value, detail := text(raw)
		if detail == "" {
			value, detail = field.check(value)
		}
		if detail != "" {
			wrong = append(wrong, ops.FieldError{Field: field.name, Detail: detail})
			continue
		}
		*field.into = &value
	}
	return change, wrong
}

// missing names the fields that were not given at all.
func (f fields) missing(required ...string) []ops.FieldError {
	var wrong []ops.FieldError
	for _, name := range required {
		if _, given := f[name]; !given {
			wrong = append(wrong, ops.FieldError{Field: name, Detail: "is required"})
		}
	}
	return wrong
}

func invalid(wrong []ops.FieldError) error {
	return refused(http.StatusUnprocessableEntity, "invalid", "A value cannot be accepted; errors names each.", wrong...)
}

// text decodes a JSON string. U+FFFD stands where half a surrogate pair or a wrongly read character was lost, so a text
// that holds it is not what somebody meant to send.
func text(raw json.RawMessage) (value, wrong string) {
	if len(raw) == 0 || raw[0] != '"' || json.Unmarshal(raw, &value) != nil {
		return "", "must be a string"
	}
	switch {
	case strings.ContainsRune(value, utf8.RuneError):
		return "", "must be valid Unicode, without U+FFFD"
	case strings.ContainsFunc(value, unicode.IsControl):
		return "", "must not have control characters"
	}
	return value, ""
}

func checkEmail(value string) (email, wrong string) {
	switch {
	case value == "":
		return "", "must not be empty"
	case len(value) > maxEmailBytes:
		return "", "must have at most " + decimal(maxEmailBytes) + " bytes"
	}
	address, err := mail.ParseAddress(value)
	if err != nil || address.Address != value {
		return "", "must be one e-mail address, without a display name"
	}
	return value, ""
}

func checkName(value string) (name, wrong string) {
	name = strings.TrimSpace(value)
	switch {
	case name == "":
		return "", "must not be empty"
	case utf8.RuneCountInString(name) > maxNameRunes:
		return "", "must have at most " + decimal(maxNameRunes) + " characters"
	}
	return name, ""
}

func decimal[N int | int64](n N) string { return strconv.FormatInt(int64(n), 10) }
