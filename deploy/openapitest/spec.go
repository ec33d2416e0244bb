// Package openapitest is the kit by which tests hold the answers of a service to its openapi.yaml. It is for tests alone. It knows
// the part of OpenAPI and JSON Schema that our descriptions use, and no more.
package openapitest

import (
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"gopkg.in/yaml.v3"
)

// Object is a mapping of an OpenAPI document, or of an answer.
type Object = map[string]any

// Spec is a description. It is safe for concurrent use.
type Spec struct {
	// Root is the whole document.
	Root Object

	text string
	mu   sync.Mutex
	seen map[string]bool
}

// Read reads a description.
func Read(t testing.TB, text []byte) *Spec {
	t.Helper()
	s := &Spec{text: string(text), seen: make(map[string]bool)}
	require.NoError(t, yaml.Unmarshal(text, &s.Root))
	return s
}

// Answer is what a service answered to a call.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// Calls are all that are described, such as "GET /customers/{id}".
func (s *Spec) Calls() (calls []string) {
	for path, item := range s.Root["paths"].(Object) {
		for method := range item.(Object) {
			calls = append(calls, strings.ToUpper(method)+" "+path)
		}
	}
	return calls
}

// Routes are the calls that source files register with a http.ServeMux, which does not tell them itself.
func Routes(t testing.TB, files ...string) (calls []string) {
	t.Helper()
	for _, file := range files {
		source, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, route := range regexp.MustCompile(`"((?:GET|POST|PUT|PATCH|DELETE) /[^"]*)"`).FindAllStringSubmatch(string(source), -1) {
			calls = append(calls, route[1])
		}
	}
	return calls
}

// Missing are the described answers that no call of Hold has seen, such as "GET /customers 400".
func (s *Spec) Missing() (missing []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for path, item := range s.Root["paths"].(Object) {
		for method, operation := range item.(Object) {
			for status := range operation.(Object)["responses"].(Object) {
				if name := strings.ToUpper(method) + " " + path + " " + status; !s.seen[name] {
					missing = append(missing, name)
				}
			}
		}
	}
	slices.Sort(missing)
	return missing
}

// Dead are the references that lead nowhere.
func (s *Spec) Dead() (dead []string) {
	for _, ref := range regexp.MustCompile(`\$ref: '([^']+)'`).FindAllStringSubmatch(s.text, -1) {
		if s.resolve(Object{"$ref": ref[1]}) == nil {
			dead = append(dead, ref[1])
		}
	}
	return dead
}

// Hold fails the test when the answer is not one that the document describes for the call. Calls of paths that are not
// described may only be refused.
func (s *Spec) Hold(t testing.TB, r *http.Request, a Answer) {
	t.Helper()
	operation, name := s.operation(r)
	if operation == nil {
		require.Contains(t, []int{http.StatusNotFound, http.StatusMethodNotAllowed}, a.Status)
		s.body(t, Object{"$ref": "#/components/schemas/Problem"}, a)
		return
	}
	status := strconv.Itoa(a.Status)
	response, described := s.resolve(operation["responses"].(Object)[status]).(Object)
	require.True(t, described, "%s answers %s, which is not described", name, status)
	s.mu.Lock()
	s.seen[name+" "+status] = true
	s.mu.Unlock()

	headers, _ := response["headers"].(Object)
	for header, definition := range headers {
		schema := s.resolve(definition).(Object)["schema"].(Object)
		require.Regexp(t, schema["pattern"], a.Header.Get(header), "%s %s: header %s", name, status, header)
	}
	content, _ := response["content"].(Object)
	if content == nil {
		require.Empty(t, a.Body, "%s %s", name, status)
		return
	}
	kind, _, err := mime.ParseMediaType(a.Header.Get("Content-Type"))
	require.NoError(t, err)
	require.Contains(t, content, kind, "%s %s", name, status)
	if strings.HasSuffix(kind, "json") && r.Method != http.MethodHead {
		s.body(t, content[kind].(Object)["schema"], a)
	}
}

func (s *Spec) body(t testing.TB, schema any, a Answer) {
	t.Helper()
	var value any
	require.NoError(t, json.Unmarshal([]byte(a.Body), &value), a.Body)
	require.Empty(t, s.wrong("$", schema, value), a.Body)
}

// operation finds what the document says of a call; nil when it says nothing.
func (s *Spec) operation(r *http.Request) (operation Object, name string) {
	for path, item := range s.Root["paths"].(Object) {
		pattern := regexp.MustCompile(`^` + regexp.MustCompile(`\\\{[a-z]+\\\}`).ReplaceAllString(regexp.QuoteMeta(path), `[^/]+`) + `$`)
		method := strings.ToLower(r.Method)
		if method == "head" {
			method = "get"
		}
		if found, ok := item.(Object)[method].(Object); ok && pattern.MatchString(r.URL.Path) {
			return found, strings.ToUpper(method) + " " + path
		}
	}
	return nil, ""
}

func (s *Spec) resolve(value any) any {
	m, _ := value.(Object)
	ref, _ := m["$ref"].(string)
	if ref == "" {
		return value
	}
	var target any = s.Root
	for part := range strings.SplitSeq(strings.TrimPrefix(ref, "#/"), "/") {
		in, _ := target.(Object)
		target = in[part]
	}
	return target
}

// wrong tells what a value has that its schema forbids: the part of JSON Schema that openapi.yaml uses.
func (s *Spec) wrong(at string, schemaOrRef, value any) (problems []string) {
	schema, ok := s.resolve(schemaOrRef).(Object)
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
	case Object:
		required, _ := schema["required"].([]any)
		for _, name := range required {
			if _, there := v[name.(string)]; !there {
				problems = append(problems, fmt.Sprintf("%s.%s is missing", at, name))
			}
		}
		properties, _ := schema["properties"].(Object)
		for name, item := range v {
			if _, described := properties[name]; !described && schema["additionalProperties"] == true {
				continue
			}
			problems = append(problems, s.wrong(at+"."+name, properties[name], item)...)
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
	case Object:
		return "object"
	case float64:
		if v == float64(int64(v)) {
			return "integer"
		}
	}
	return "number"
}
