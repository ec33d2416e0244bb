package ops

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// MaxBody is the most bytes that the body of an operator's call may have.
const MaxBody = 64 << 10

// Guard lets only those through who show the token as a bearer token. Without one configured nobody is let through.
//
// Invariant: the time that a refusal takes tells nothing of the token: two hashes of one length are compared, whole.
func Guard(token Secret, next http.HandlerFunc) http.HandlerFunc {
	want := sha256.Sum256([]byte(token.Reveal()))
	return func(w http.ResponseWriter, r *http.Request) {
		if token == "" {
			WriteProblem(w, Problem{Status: http.StatusForbidden, Code: "admin_disabled", Detail: "ADMIN_TOKEN is not set"})
			return
		}
		kind, shown, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		got := sha256.Sum256([]byte(shown))
		if !strings.EqualFold(kind, "Bearer") || subtle.ConstantTimeCompare(got[:], want[:]) != 1 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			WriteProblem(w, Problem{Status: http.StatusUnauthorized, Code: "unauthorized", Detail: "the bearer token is missing or wrong"})
			return
		}
		next(w, r)
	}
}

// ReadObject reads a body of at most MaxBody bytes into a struct: one JSON object, with no names but the struct's. No body at
// all is an object without fields. When it tells false, the call was answered, and form says there what the body should be.
func ReadObject(w http.ResponseWriter, r *http.Request, into any, form string) bool {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxBody))
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		WriteProblem(w, Problem{Status: http.StatusRequestEntityTooLarge, Code: "too_large",
			Detail: fmt.Sprintf("the body has more than %d bytes", tooLarge.Limit)})
		return false
	}
	if err == nil {
		err = object(bytes.TrimSpace(body), into)
	}
	if err != nil {
		WriteProblem(w, Problem{Status: http.StatusBadRequest, Code: "bad_body", Detail: "the body must be " + form})
		return false
	}
	return true
}

var errNoObject = errors.New("not one JSON object")

func object(text []byte, into any) error {
	switch {
	case len(text) == 0:
		return nil
	case text[0] != '{':
		return errNoObject
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) { // More would not see a closing bracket
		return errNoObject
	}
	return nil
}

// ReadNumber reads a whole number from least to most from the query; the fallback stands for one that is not given. When it
// tells false, the call was answered.
func ReadNumber(w http.ResponseWriter, r *http.Request, name string, least, most, fallback uint64) (uint64, bool) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return fallback, true
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n < least || n > most {
		WriteProblem(w, Problem{Status: http.StatusUnprocessableEntity, Code: "invalid", Errors: []FieldError{
			{Field: name, Detail: fmt.Sprintf("must be a whole number from %d to %d", least, most)}}})
		return 0, false
	}
	return n, true
}
