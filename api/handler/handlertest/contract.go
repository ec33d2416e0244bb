package handlertest

import (
	"crypto/sha256"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"tailbox/api/handler"
	"tailbox/api/store"
	"tailbox/schema"
)

// Contract tests what the handler relies on. The function returns an empty store.
func Contract(t *testing.T, empty func(t *testing.T) handler.Customers) {
	for name, test := range map[string]func(*testing.T, handler.Customers){
		"ReadsWhatWasCreated":          readsWhatWasCreated,
		"ListsNewestFirst":             listsNewestFirst,
		"RaisesTheVersionByOne":        raisesTheVersionByOne,
		"ChangesNothingForNothing":     changesNothingForNothing,
		"LeavesAnotherVersionAlone":    leavesAnotherVersionAlone,
		"DeletesOnce":                  deletesOnce,
		"GivesTheFirstAnswerAgain":     givesTheFirstAnswerAgain,
		"TakesAKeyForOneRequestOnly":   takesAKeyForOneRequestOnly,
		"KeepsKeysThatDifferInCase":    keepsKeysThatDifferInCase,
		"KeepsTextsAsTheyAre":          keepsTextsAsTheyAre,
		"FindsNothingBehindTheOldest":  findsNothingBehindTheOldest,
		"RefusesToChangeWhatIsMissing": refusesToChangeWhatIsMissing,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, empty(t))
		})
	}
}

// Customer returns a fresh customer with fixed texts.
func Customer() store.Customer {
	now := present()
	return store.Customer{ID: schema.NewID(), Email: "ada@example.com", Name: "Ada Lovelace", Version: 1, CreatedAt: now, UpdatedAt: now}
}

// Once returns a request with a key that stands for the customer.
func Once(key string, c store.Customer) store.Once {
	return store.Once{Key: key, RequestHash: sha256.Sum256([]byte(c.Email + "\x00" + c.Name)), Answer: store.Answer{
		Status: 201, Location: "/customers/" + c.ID, Body: []byte(`{"id":"` + c.ID + `"}`),
	}}
}

func created(t *testing.T, customers handler.Customers) store.Customer {
	t.Helper()
	c := Customer()
	require.NoError(t, customers.Create(t.Context(), c, nil))
	return c
}

func readsWhatWasCreated(t *testing.T, customers handler.Customers) {
	c := created(t, customers)
	got, err := customers.Get(t.Context(), c.ID)
	require.NoError(t, err)
	require.Equal(t, c, got)

	_, err = customers.Get(t.Context(), schema.NewID())
	require.ErrorIs(t, err, store.ErrNotFound)
}

func listsNewestFirst(t *testing.T, customers handler.Customers) {
	var want []store.Customer
	for range 5 {
		want = append(want, created(t, customers))
	}
	slices.Reverse(want)

	all, err := customers.List(t.Context(), "", 10)
	require.NoError(t, err)
	require.Equal(t, want, all)
	first, err := customers.List(t.Context(), "", 2)
	require.NoError(t, err)
	require.Equal(t, want[:2], first)
	require.NoError(t, customers.Delete(t.Context(), first[1].ID, nil, nil))
	second, err := customers.List(t.Context(), first[1].ID, 2)
	require.NoError(t, err)
	require.Equal(t, want[2:4], second, "a page goes on behind a customer that was deleted")
}

func findsNothingBehindTheOldest(t *testing.T, customers handler.Customers) {
	c := created(t, customers)
	none, err := customers.List(t.Context(), c.ID, 10)
	require.NoError(t, err)
	require.Empty(t, none)
}

func raisesTheVersionByOne(t *testing.T, customers handler.Customers) {
	c := created(t, customers)
	email, name := "countess@example.com", "Countess"
	one, err := customers.Update(t.Context(), c.ID, store.Change{Email: &email}, nil, nil)
	require.NoError(t, err)
	version := uint64(2)
	two, err := customers.Update(t.Context(), c.ID, store.Change{Name: &name}, &version, nil)
	require.NoError(t, err)

	require.Equal(t, uint64(2), one.Version)
	require.Equal(t, "Ada Lovelace", one.Name)
	require.Equal(t, uint64(3), two.Version)
	require.Equal(t, email, two.Email)
	require.Equal(t, name, two.Name)
	require.Equal(t, c.CreatedAt, two.CreatedAt)
	require.False(t, two.UpdatedAt.Before(c.UpdatedAt))
	got, err := customers.Get(t.Context(), c.ID)
	require.NoError(t, err)
	require.Equal(t, two, got)
}

func changesNothingForNothing(t *testing.T, customers handler.Customers) {
	c := created(t, customers)
	same, err := customers.Update(t.Context(), c.ID, store.Change{Email: &c.Email, Name: &c.Name}, nil, nil)
	require.NoError(t, err)
	require.Equal(t, c, same)
}

func leavesAnotherVersionAlone(t *testing.T, customers handler.Customers) {
	c := created(t, customers)
	name, version := "Countess", uint64(7)
	_, err := customers.Update(t.Context(), c.ID, store.Change{Name: &name}, &version, nil)
	require.ErrorIs(t, err, store.ErrStale)
	require.ErrorIs(t, customers.Delete(t.Context(), c.ID, &version, nil), store.ErrStale)
	got, err := customers.Get(t.Context(), c.ID)
	require.NoError(t, err)
	require.Equal(t, c, got)
}

func deletesOnce(t *testing.T, customers handler.Customers) {
	c, other := created(t, customers), created(t, customers)
	require.NoError(t, customers.Delete(t.Context(), c.ID, &c.Version, nil))
	require.ErrorIs(t, customers.Delete(t.Context(), c.ID, nil, nil), store.ErrNotFound)
	_, err := customers.Get(t.Context(), other.ID)
	require.NoError(t, err)
}

func refusesToChangeWhatIsMissing(t *testing.T, customers handler.Customers) {
	name, version := "Countess", uint64(1)
	_, err := customers.Update(t.Context(), schema.NewID(), store.Change{Name: &name}, &version, nil)
	require.ErrorIs(t, err, store.ErrNotFound)
}

func givesTheFirstAnswerAgain(t *testing.T, customers handler.Customers) {
	c, again := Customer(), Customer()
	first, err := customers.CreateOnce(t.Context(), c, nil, Once("key", c))
	require.NoError(t, err)
	second, err := customers.CreateOnce(t.Context(), again, nil, Once("key", again))
	require.NoError(t, err)

	require.Equal(t, Once("key", c).Answer, first)
	require.Equal(t, first, second)
	all, err := customers.List(t.Context(), "", 10)
	require.NoError(t, err)
	require.Equal(t, []store.Customer{c}, all)
}

func takesAKeyForOneRequestOnly(t *testing.T, customers handler.Customers) {
	c, other := Customer(), Customer()
	other.Name = "Somebody else"
	_, err := customers.CreateOnce(t.Context(), c, nil, Once("key", c))
	require.NoError(t, err)
	_, err = customers.CreateOnce(t.Context(), other, nil, Once("key", other))
	require.ErrorIs(t, err, store.ErrKeyReused)
	_, err = customers.Get(t.Context(), other.ID)
	require.ErrorIs(t, err, store.ErrNotFound)
}

func keepsKeysThatDifferInCase(t *testing.T, customers handler.Customers) {
	c, other := Customer(), Customer()
	_, err := customers.CreateOnce(t.Context(), c, nil, Once("Key", c))
	require.NoError(t, err)
	_, err = customers.CreateOnce(t.Context(), other, nil, Once("kEY", other))
	require.NoError(t, err)
	_, err = customers.Get(t.Context(), other.ID)
	require.NoError(t, err)
}

func keepsTextsAsTheyAre(t *testing.T, customers handler.Customers) {
	c := Customer()
	c.Name = `Zoë O'Neill \ "Ω" 🚀; DROP TABLE customers; -- %s ?`
	c.Email = `o'neill+x\y@example.com`
	require.NoError(t, customers.Create(t.Context(), c, nil))
	got, err := customers.Get(t.Context(), c.ID)
	require.NoError(t, err)
	require.Equal(t, c, got)
}
