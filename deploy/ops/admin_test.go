package ops_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"tailbox/deploy/ops"
)

// call sends one request to a handler and gives the answer and the problem in it, if there is one.
func call(t *testing.T, h http.HandlerFunc, target, body string, header http.Header) (*httptest.ResponseRecorder, ops.Problem) {
	t.Helper()
	request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, target, strings.NewReader(body))
	request.Header = header
	answer := httptest.NewRecorder()
	h(answer, request)
	var problem ops.Problem
	if strings.HasPrefix(answer.Header().Get("Content-Type"), "application/problem+json") {
		require.NoError(t, json.Unmarshal(answer.Body.Bytes(), &problem))
		require.Equal(t, answer.Code, problem.Status)
	}
	return answer, problem
}

func TestOnlyTheTokenOpensTheGuard(t *testing.T) {
	t.Parallel()
	passed := 0
	open := func(w http.ResponseWriter, _ *http.Request) { passed++; w.WriteHeader(http.StatusNoContent) }
	guarded := ops.Guard("open sesame", open)
	for _, shown := range []string{"", "Bearer", "Bearer ", "Bearer open", "Bearer open sesame ", "Bearer OPEN SESAME", "Basic open sesame", "open sesame"} {
		answer, problem := call(t, guarded, "/", "", http.Header{"Authorization": {shown}})
		require.Equal(t, http.StatusUnauthorized, answer.Code, shown)
		require.Equal(t, "unauthorized", problem.Code)
		require.Equal(t, "Bearer", answer.Header().Get("WWW-Authenticate"))
	}
	for _, shown := range []string{"", "Bearer", "Bearer "} {
		answer, problem := call(t, ops.Guard("", open), "/", "", http.Header{"Authorization": {shown}})
		require.Equal(t, http.StatusForbidden, answer.Code, "no token is configured: %s", shown)
		require.Equal(t, "admin_disabled", problem.Code)
	}
	require.Zero(t, passed)
	for _, shown := range []string{"Bearer open sesame", "bearer open sesame"} {
		answer, _ := call(t, guarded, "/", "", http.Header{"Authorization": {shown}})
		require.Equal(t, http.StatusNoContent, answer.Code, shown)
	}
	require.Equal(t, 2, passed)
}

func TestABodyIsOneSmallObjectWithKnownNames(t *testing.T) {
	t.Parallel()
	var got struct {
		Why string `json:"why"`
	}
	read := func(w http.ResponseWriter, r *http.Request) {
		got.Why = ""
		if ops.ReadObject(w, r, &got, `{"why": "..."}`) {
			w.WriteHeader(http.StatusNoContent)
		}
	}
	full := `{"why":"` + strings.Repeat("x", ops.MaxBody-len(`{"why":""}`)) + `"}`
	for body, status := range map[string]int{
		"": http.StatusNoContent, "{}": http.StatusNoContent, ` {"why":"to look"} ` + "\n": http.StatusNoContent, full: http.StatusNoContent,
		full + " ": http.StatusRequestEntityTooLarge, strings.Repeat("[", ops.MaxBody+1): http.StatusRequestEntityTooLarge,
		"{": http.StatusBadRequest, "[]": http.StatusBadRequest, `{"why":1}`: http.StatusBadRequest, `{"why":"a"}{}`: http.StatusBadRequest,
		`{"why":"a"}]`: http.StatusBadRequest, `{"who":"a"}`: http.StatusBadRequest, "null": http.StatusBadRequest, "null null": http.StatusBadRequest, " ": http.StatusNoContent,
		strings.Repeat("[", 20_000): http.StatusBadRequest,
	} {
		answer, problem := call(t, read, "/", body, nil)
		require.Equal(t, status, answer.Code, "%.40s", body)
		if status == http.StatusBadRequest {
			require.Equal(t, `the body must be {"why": "..."}`, problem.Detail)
		}
	}
}

func TestANumberOfTheQueryIsWithinItsBounds(t *testing.T) {
	t.Parallel()
	var got uint64
	read := func(w http.ResponseWriter, r *http.Request) {
		var ok bool
		if got, ok = ops.ReadNumber(w, r, "limit", 1, 1000, 100); ok {
			w.WriteHeader(http.StatusNoContent)
		}
	}
	for text, want := range map[string]uint64{"": 100, "1": 1, "1000": 1000} {
		answer, _ := call(t, read, "/?limit="+text, "", nil)
		require.Equal(t, http.StatusNoContent, answer.Code)
		require.Equal(t, want, got)
	}
	for _, text := range []string{"0", "1001", "-1", "many", "1.5", "99999999999999999999"} {
		answer, problem := call(t, read, "/?limit="+text, "", nil)
		require.Equal(t, http.StatusUnprocessableEntity, answer.Code, text)
		require.Equal(t, "limit", problem.Errors[0].Field)
	}
}
