package handler

import (
	"net/http"
	"regexp"
	"strconv"
	"strings"
)

const maxKey = 255

// idempotencyKey returns the Idempotency-Key, empty when there is none.
func idempotencyKey(header http.Header) (string, error) {
	values := header.Values("Idempotency-Key")
	if len(values) == 0 {
		return "", nil
	}
	key := values[0]
	printable := !strings.ContainsFunc(key, func(r rune) bool { return r < ' ' || r > '~' })
	if len(values) > 1 || len(key) < 1 || len(key) > maxKey || !printable {
		return "", refused(http.StatusBadRequest, "bad_idempotency_key",
			"Idempotency-Key must be given once, with 1 to 255 printable ASCII characters.")
	}
	return key, nil
}

// ifMatch returns the version that the client expects, nil when any will do.
func ifMatch(header http.Header) (*uint64, error) {
	values := header.Values("If-Match")
	if len(values) == 0 || len(values) == 1 && values[0] == "*" {
		return nil, nil
	}
	quoted := values[0]
	version, err := strconv.ParseUint(strings.Trim(quoted, `"`), 10, 64)
	if err != nil || len(values) > 1 || quoted != etag(version) {
		return nil, refused(http.StatusBadRequest, "bad_if_match", `If-Match must be "*" or one version in double quotes, as ETag gives it.`)
	}
	return &version, nil
}

func etag(version uint64) string { return `"` + strconv.FormatUint(version, 10) + `"` }

var traceparent = regexp.MustCompile(`^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}$`)

// eventHeaders returns the pairs that travel with the event: a traceparent of the form that W3C Trace Context defines. Any
// other is dropped, as that document asks; a trace is never worth a customer.
func eventHeaders(header http.Header) map[string]string {
	values := header.Values("Traceparent")
	if len(values) != 1 {
		return nil
	}
	parts := traceparent.FindStringSubmatch(values[0])
	if parts == nil || parts[1] == "ff" || strings.Trim(parts[2], "0") == "" || strings.Trim(parts[3], "0") == "" {
		return nil
	}
	return map[string]string{"traceparent": values[0]}
}
