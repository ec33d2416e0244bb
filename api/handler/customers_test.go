package handler_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"tailbox/api/store"
	"tailbox/schema"
)

func TestCreateAnswersTheCustomerAndWhereItIs(t *testing.T) {
	t.Parallel()
	b := setup(t)
	a := b.do("POST", "/customers", `{"email":"ada@example.com","name":"  Ada Lovelace "}`, "Content-Type", "application/json; charset=utf-8")
	require.Equal(t, http.StatusCreated, a.status)
	customer := a.json(t)
	require.Equal(t, "/customers/"+customer["id"].(string), a.header.Get("Location"))
	require.Equal(t, `"1"`, a.header.Get("ETag"))
	require.Equal(t, "Ada Lovelace", customer["name"])
	require.Equal(t, customer["created_at"], customer["updated_at"])
	require.Equal(t, a.body, b.do("GET", a.header.Get("Location"), "").body)
}

func TestCustomerIsFoundUnderItsIDInAnyCase(t *testing.T) {
	t.Parallel()
	b := setup(t)
	path := b.create()
	upper := "/customers/" + strings.ToUpper(strings.TrimPrefix(path, "/customers/"))
	require.Equal(t, 200, b.do("GET", upper, "").status)
}

func TestWhatIsNoUUIDNamesNoCustomer(t *testing.T) {
	t.Parallel()
	b := setup(t)
	id := schema.NewID()
	for _, path := range []string{"x", "1", "%00", "{" + id + "}", "urn:uuid:" + id, strings.ReplaceAll(id, "-", ""), id + "0", "%F0%9F%9A%80"} {
		for _, method := range []string{"GET", "PATCH", "DELETE"} {
			b.refused(b.do(method, "/customers/"+path, `{"name":"x"}`), 404, "no_such_customer")
		}
	}
}

func TestHeadIsGetWithoutABody(t *testing.T) {
	t.Parallel()
	b := setup(t)
	path := b.create()
	a := b.do("HEAD", path, "")
	require.Equal(t, 200, a.status)
	require.Equal(t, `"1"`, a.header.Get("ETag"))
}

func TestPagesFollowEachOtherToTheEnd(t *testing.T) {
	t.Parallel()
	b := setup(t)
	var want []string
	for range 7 {
		want = append([]string{strings.TrimPrefix(b.create(), "/customers/")}, want...)
	}
	var got []string
	pages, target := 0, "/customers?limit=3"
	for {
		var page struct {
			Customers []struct{ ID string }
			Next      *string
		}
		require.NoError(t, json.Unmarshal([]byte(b.do("GET", target, "").body), &page))
		pages++
		for _, c := range page.Customers {
			got = append(got, c.ID)
		}
		if page.Next == nil {
			break
		}
		target = "/customers?limit=3&after=" + *page.Next
	}
	require.Equal(t, want, got)
	require.Equal(t, 3, pages)
}

func TestLastFullPageHasNoNext(t *testing.T) {
	t.Parallel()
	b := setup(t)
	require.JSONEq(t, `{"customers":[],"next":null}`, b.do("GET", "/customers", "").body)
	for range 2 {
		b.create()
	}
	require.Nil(t, b.do("GET", "/customers?limit=2", "").json(t)["next"])
	require.NotNil(t, b.do("GET", "/customers?limit=1", "").json(t)["next"])
}

func TestPageThatCannotBeReadIsRefused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, limit := range []string{"0", "-1", "201", "x", "1.5", "1e2", "99999999999999999999", "+", "%20", "1&limit=2"} {
		b.refused(b.do("GET", "/customers?limit="+limit, ""), 400, "bad_limit")
	}
	for _, after := range []string{"x", "0", schema.NewID() + "0", "%27%3B--"} {
		b.refused(b.do("GET", "/customers?after="+after, ""), 400, "bad_after")
	}
	for _, query := range []string{"limit=%zz", "after=1;limit=2"} {
		b.refused(b.do("GET", "/customers?"+query, ""), 400, "bad_query")
	}
	for _, query := range []string{"limit=1", "limit=200", "limit=&after=", "after=" + schema.NewID()} {
		require.Equal(t, 200, b.do("GET", "/customers?"+query, "").status)
	}
}

func TestPatchRaisesTheVersionAndSaysSo(t *testing.T) {
	t.Parallel()
	b := setup(t)
	path := b.create()
	a := b.do("PATCH", path, `{"name":"Countess"}`, "If-Match", `"1"`, "Content-Type", "application/merge-patch+json")
	require.Equal(t, 200, a.status)
	require.Equal(t, `"2"`, a.header.Get("ETag"))
	require.InDelta(t, 2, a.json(t)["version"], 0)
	require.Equal(t, "ada@example.com", a.json(t)["email"])
	b.refused(b.do("PATCH", path, `{"name":"x"}`, "If-Match", `"1"`), 412, "stale")
	require.Equal(t, 200, b.do("PATCH", path, `{"email":"c@example.com"}`, "If-Match", `*`).status)
	require.Len(t, b.fake.Events(), 3)
}

func TestPatchThatChangesNothingMakesNoEvent(t *testing.T) {
	t.Parallel()
	b := setup(t)
	path := b.create()
	a := b.do("PATCH", path, ada)
	require.Equal(t, 200, a.status)
	require.Equal(t, `"1"`, a.header.Get("ETag"))
	require.Len(t, b.fake.Events(), 1)
}

func TestPatchWantsAtLeastOneValue(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.refused(b.do("PATCH", b.create(), `{}`), 422, "nothing_to_change")
}

func TestIfMatchIsOneVersionOrAny(t *testing.T) {
	t.Parallel()
	b := setup(t)
	path := b.create()
	for _, malformed := range []string{"1", `"`, `""`, `"x"`, `W/"1"`, `"1", "2"`, `"01"`, `"-1"`, `"1`, `"99999999999999999999"`, ""} {
		for _, method := range []string{"PATCH", "DELETE"} {
			b.refused(b.do(method, path, `{"name":"x"}`, "If-Match", malformed), 400, "bad_if_match")
		}
	}
	b.refused(b.do("DELETE", path, "", "If-Match", `"1"`, "If-Match", `"1"`), 400, "bad_if_match")
	b.refused(b.do("DELETE", path, "", "If-Match", `"0"`), 412, "stale")
	require.Equal(t, 204, b.do("DELETE", path, "", "If-Match", "*").status)
	b.refused(b.do("DELETE", path, "", "If-Match", "*"), 404, "no_such_customer")
}

func TestDeleteTakesTheVersionItNames(t *testing.T) {
	t.Parallel()
	b := setup(t)
	path := b.create()
	require.Equal(t, 204, b.do("DELETE", path, "", "If-Match", `"1"`).status)
	events := b.fake.Events()
	require.Equal(t, store.CustomerDeleted, events[1].Type)
	require.Equal(t, uint64(2), events[1].Customer.Version)
}

func TestRepeatGetsTheFirstAnswerByteForByte(t *testing.T) {
	t.Parallel()
	b := setup(t)
	first := b.do("POST", "/customers", ada, "Idempotency-Key", "key")
	require.Equal(t, 201, first.status)
	for _, same := range []string{ada, ` { "name": " Ada Lovelace ", "email" : "ada@example.com" } `, `{"email":"\u0061da@example.com","name":"Ada Lovelace"}`} {
		again := b.do("POST", "/customers", same, "Idempotency-Key", "key")
		require.Equal(t, first.status, again.status)
		require.Equal(t, first.header, again.header)
		require.Equal(t, first.body, again.body)
	}
	b.refused(b.do("POST", "/customers", `{"email":"ada@example.com","name":"Other"}`, "Idempotency-Key", "key"), 422, "idempotency_key_reused")
	require.Len(t, b.fake.Events(), 1)
}

func TestRefusedRequestLeavesItsKeyUnused(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.refused(b.do("POST", "/customers", `{"email":"ada","name":"Ada"}`, "Idempotency-Key", "key"), 422, "invalid")
	require.Equal(t, 201, b.do("POST", "/customers", ada, "Idempotency-Key", "key").status)
}

func TestKeyIsPrintableASCII(t *testing.T) {
	t.Parallel()
	b := setup(t)
	for _, key := range []string{"", strings.Repeat("k", 256), "ключ", "a\tb", "a\x7f", "a\x00"} {
		b.refused(b.do("POST", "/customers", ada, "Idempotency-Key", key), 400, "bad_idempotency_key")
	}
	b.refused(b.do("POST", "/customers", ada, "Idempotency-Key", "a", "Idempotency-Key", "b"), 400, "bad_idempotency_key")
	for _, key := range []string{"k", strings.Repeat("k", 255), `a "quoted" key'; --`} {
		require.Equal(t, 201, b.do("POST", "/customers", ada, "Idempotency-Key", key).status)
	}
}

func TestTraceTravelsWithTheEvent(t *testing.T) {
	t.Parallel()
	const valid = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	b := setup(t)
	path := b.do("POST", "/customers", ada, "traceparent", valid).header.Get("Location")
	b.do("POST", "/customers", ada, "traceparent", valid, "Idempotency-Key", "key")
	b.do("PATCH", path, `{"name":"Countess"}`, "traceparent", valid)
	b.do("DELETE", path, "", "traceparent", valid)
	events := b.fake.Events()
	require.Len(t, events, 4)
	for _, e := range events {
		require.Equal(t, map[string]string{"traceparent": valid}, e.Headers)
	}
	for _, malformed := range []string{
		"", "x", strings.ToUpper(valid), "ff" + valid[2:], valid + "-00", valid + "\n",
		"00-00000000000000000000000000000000-00f067aa0ba902b7-01", "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
	} {
		require.Equal(t, 201, b.do("POST", "/customers", ada, "traceparent", malformed).status)
	}
	require.Equal(t, 201, b.do("POST", "/customers", ada, "traceparent", valid, "traceparent", valid).status)
	for _, e := range b.fake.Events()[4:] {
		require.Empty(t, e.Headers)
	}
}
