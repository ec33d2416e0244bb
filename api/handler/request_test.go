package handler_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"tailbox/api/handler"
)

func TestBodyThatIsNotOneObjectIsRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for body, code := range map[string]string{
		"": "not_json", "{": "not_json", "ada": "not_json", ada + "x": "not_json", ada + ada: "not_json", ada[:len(ada)-1] + ",}": "not_json",
		`{"email":"a@b","name":"` + "\xff" + `"}`: "not_json", "\ufeff" + ada: "not_json",
		strings.Repeat("[", 20000): "not_json",
		"[]":                       "not_an_object", "null": "not_an_object", `"x"`: "not_an_object", "7": "not_an_object", "[" + ada + "]": "not_an_object",
		`{"email":"a@b","email":"c@d","name":"x"}`:                        "field_twice",
		`{"email":"a@b","name":"x","id":"7"}`:                             "unknown_field",
		`{"Email":"a@b","name":"x"}`:                                      "unknown_field",
		`{"email":"a@b","name":"x","` + strings.Repeat("k", 500) + `":1}`: "unknown_field",
	} {
		problem := b.refused(b.do("POST", "/customers", body), 400, code)
		if code == "unknown_field" {
			require.Less(t, len(problem["errors"].([]any)[0].(map[string]any)["field"].(string)), 100)
		}
	}
	require.Empty(t, b.fake.Events())
}

func TestEveryWrongValueIsNamed(t *testing.T) {
	t.Parallel()
	b := setup(t)
	longest := strings.Repeat("e", 308) + "@example.com"
	for _, c := range []struct {
		body   string
		fields []string
	}{
		{`{}`, []string{"email", "name"}},
		{`{"email":"a@b"}`, []string{"name"}},
		{`{"email":null,"name":7}`, []string{"email", "name"}},
		{`{"email":["a@b"],"name":{"x":"y"}}`, []string{"email", "name"}},
		{`{"email":"","name":""}`, []string{"email", "name"}},
		{`{"email":"a@b","name":" \u00a0 "}`, []string{"name"}},
		{`{"email":"a@b","name":"` + strings.Repeat("ß", 201) + `"}`, []string{"name"}},
		{`{"email":"e` + longest + `","name":"x"}`, []string{"email"}},
		{`{"email":"a@b","name":"a\u0000b"}`, []string{"name"}},
		{`{"email":"a@b","name":"a\nb"}`, []string{"name"}},
		{`{"email":"a@b","name":"a\u0085b"}`, []string{"name"}},
		{`{"email":"a@b","name":"\ud800"}`, []string{"name"}},
		{`{"email":"a","name":"x"}`, []string{"email"}},
		{`{"email":"a@","name":"x"}`, []string{"email"}},
		{`{"email":"a@b@c","name":"x"}`, []string{"email"}},
		{`{"email":" a@b","name":"x"}`, []string{"email"}},
		{`{"email":"Ada <a@b>","name":"x"}`, []string{"email"}},
		{`{"email":"<a@b>","name":"x"}`, []string{"email"}},
		{`{"email":"a@b, c@d","name":"x"}`, []string{"email"}},
		{`{"email":"a@b\r\nBcc: c@d","name":"x"}`, []string{"email"}},
	} {
		problem := b.refused(b.do("POST", "/customers", c.body), 422, "invalid")
		var fields []string
		for _, e := range problem["errors"].([]any) {
			fields = append(fields, e.(map[string]any)["field"].(string))
		}
		require.ElementsMatch(t, c.fields, fields, c.body)
	}
	require.Empty(t, b.fake.Events())

	for _, c := range []struct{ email, name string }{
		{longest, "x"}, {"a@b", strings.Repeat("ß", 200)}, {"zoë@пример.example", "Zoë 🚀"}, {"a+b@c.example", `<b>"&'</b>`},
	} {
		body, err := json.Marshal(map[string]any{"email": c.email, "name": c.name})
		require.NoError(t, err)
		a := b.do("POST", "/customers", string(body))
		require.Equal(t, 201, a.status, a.body)
		require.Equal(t, c.email, a.json(t)["email"])
		require.Equal(t, c.name, a.json(t)["name"])
	}
}

func TestBodyUpToTheLimitIsRead(t *testing.T) {
	t.Parallel()
	b := setup(t)
	full := ada + strings.Repeat(" ", handler.DefaultMaxBody-len(ada))
	require.Equal(t, 201, b.do("POST", "/customers", full).status)
	b.refused(b.do("POST", "/customers", full+" "), 413, "too_large")
}

func TestOnlyJSONTypesAreRead(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, kind := range []string{"text/plain", "application/x-www-form-urlencoded", "application/xml", "text/json", "application/", "json", "application/jsonp", ";"} {
		b.refused(b.do("POST", "/customers", ada, "Content-Type", kind), 415, "not_json_type")
	}
	for _, kind := range []string{"application/json", "Application/JSON; charset=UTF-8", "application/vnd.customer+json"} {
		require.Equal(t, 201, b.do("POST", "/customers", ada, "Content-Type", kind).status)
	}
}

type brokenBody struct{}

func (brokenBody) Read([]byte) (int, error) { return 0, http.ErrBodyReadAfterClose }
func (brokenBody) Close() error             { return nil }

func TestBodyThatBreaksOffIsRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	r := b.request("POST", "/customers", "")
	r.Body = brokenBody{}
	b.refused(b.send(r), 400, "not_read")
}

// Whatever is sent, the answer is a customer or a refusal that is described, and a customer is only what was asked for.
func FuzzCreate(f *testing.F) {
	for _, body := range []string{ada, "", "{", "null", `{"email":1}`, `{"email":"a@b","name":"\ud800"}`, ada + ada, `{"email":"a@b","name":"x","name":"y"}`} {
		f.Add(body)
	}
	shared := setup(f)
	f.Fuzz(func(t *testing.T, body string) {
		b := *shared
		b.t = t
		a := b.do("POST", "/customers", body)
		require.Contains(t, []int{201, 400, 413, 422}, a.status)
		if a.status == http.StatusCreated {
			var sent struct{ Email, Name string }
			require.NoError(t, json.Unmarshal([]byte(body), &sent))
			require.Equal(t, sent.Email, a.json(t)["email"])
			require.Equal(t, strings.TrimSpace(sent.Name), a.json(t)["name"])
		}
	})
}
