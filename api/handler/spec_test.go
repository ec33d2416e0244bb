package handler_test

import (
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

// object is a mapping of the OpenAPI document, or of an answer.
type object = map[string]any

// spec holds answers to openapi.yaml and remembers which of the described ones it saw.
type spec struct {
	root object
	mu   sync.Mutex
	seen map[string]bool
}

func readSpec(t testing.TB) *spec {
	t.Helper()
	s := &spec{seen: make(map[string]bool)}
	require.NoError(t, yaml.Unmarshal(openAPI(t), &s.root))
	return s
}

// hold fails the test when the answer is not one that the document describes for the call. Calls of paths that are not
// described may only be refused.
func (s *spec) hold(t testing.TB, r *http.Request, a answer) {
	t.Helper()
	operation, name := s.operation(r)
	if operation == nil {
		require.Contains(t, []int{http.StatusNotFound, http.StatusMethodNotAllowed}, a.status)
		s.body(t, object{"$ref": "#/components/schemas/Problem"}, a)
		return
	}
	status := strconv.Itoa(a.status)
	response, described := s.resolve(operation["responses"].(object)[status]).(object)
	require.True(t, described, "%s answers %s, which is not described", name, status)
	s.mu.Lock()
	s.seen[name+" "+status] = true
	s.mu.Unlock()

	headers, _ := response["headers"].(object)
	for header, definition := range headers {
		schema := s.resolve(definition).(object)["schema"].(object)
		require.Regexp(t, schema["pattern"], a.header.Get(header), "%s %s: header %s", name, status, header)
	}
	content, _ := response["content"].(object)
	if content == nil {
		require.Empty(t, a.body, "%s %s", name, status)
		return
	}
	kind, _, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	require.NoError(t, err)
	require.Contains(t, content, kind, "%s %s", name, status)
	if strings.HasSuffix(kind, "json") && r.Method != http.MethodHead {
		s.body(t, content[kind].(object)["schema"], a)
	}
}

func (s *spec) body(t testing.TB, schema any, a answer) {
	t.Helper()
	var value any
	require.NoError(t, json.Unmarshal([]byte(a.body), &value), a.body)
	require.Empty(t, s.wrong("$", schema, value), a.body)
}

// operation finds what the document says of a call; nil when it says nothing.
func (s *spec) operation(r *http.Request) (operation object, name string) {
	for path, item := range s.root["paths"].(object) {
		pattern := regexp.MustCompile(`^` + regexp.MustCompile(`\\\{[a-z]+\\\}`).ReplaceAllString(regexp.QuoteMeta(path), `[^/]+`) + `$`)
		method := strings.ToLower(r.Method)
		if method == "head" {
			method = "get"
		}
		if found, ok := item.(object)[method].(object); ok && pattern.MatchString(r.URL.Path) {
			return found, strings.ToUpper(method) + " " + path
		}
	}
	return nil, ""
}

func (s *spec) resolve(value any) any {
	m, _ := value.(object)
	ref, _ := m["$ref"].(string)
	if ref == "" {
		return value
	}
	var target any = s.root
	for part := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
		target = target.(object)[part]
	}
	return target
}

// wrong tells what a value has that its schema forbids: the part of JSON Schema that openapi.yaml uses.
func (s *spec) wrong(at string, schemaOrRef, value any) (problems []string) {
	schema, ok := s.resolve(schemaOrRef).(object)
	if !ok {
		return []string{fmt.Sprintf("%s: no schema %v", at, schemaOrRef)}
	}
	kinds, _ := schema["type"].([]any)
	if kind, one := schema["type"].(string); one {
		kinds = []any{kind}
	}
	if kind := kindOf(value); !slices.Contains(kinds, any(kind)) && (kind != "integer" || !slices.Contains(kinds, any("number"))) {
		return []string{fmt.Sprintf("%s is %s, not %v", at, kind, kinds)}
	}
	if allowed, ok := schema["enum"].([]any); ok && !slices.Contains(allowed, value) {
		problems = append(problems, fmt.Sprintf("%s is none of %v", at, allowed))
	}
	switch v := value.(type) {
	case string:
		if pattern, ok := schema["pattern"].(string); ok && !regexp.MustCompile(pattern).MatchString(v) {
			problems = append(problems, fmt.Sprintf("%s does not match %s", at, pattern))
		}
	case []any:
		for i, item := range v {
			problems = append(problems, s.wrong(fmt.Sprintf("%s[%d]", at, i), schema["items"], item)...)
		}
	case object:
		required, _ := schema["required"].([]any)
		for _, name := range required {
			if _, there := v[name.(string)]; !there {
				problems = append(problems, fmt.Sprintf("%s.%s is missing", at, name))
			}
		}
		for name, item := range v {
			problems = append(problems, s.wrong(at+"."+name, schema["properties"].(object)[name], item)...)
		}
	}
	return problems
}

func kindOf(value any) string {
	switch v := value.(type) {
	case nil:
		return "null"
	case string:
		return "string"
	case bool:
		return "boolean"
	case []any:
		return "array"
	case object:
		return "object"
	case float64:
		if v == float64(int64(v)) {
			return "integer"
		}
	}
	return "number"
}
