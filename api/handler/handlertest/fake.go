// Package handlertest holds what the handler is tested with: Fake, a store in memory that fails on demand, and Contract,
// the tests that the fake and the real store both pass, so that one may stand for the other.
package handlertest

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"tailbox/api/handler"
	"tailbox/api/store"
)

// Event is what a change would have written into the outbox.
type Event struct {
	Type     string
	Customer store.Customer
	Headers  map[string]string
}

// Fake is a store in memory. The zero value is empty and works.
type Fake struct {
	mu        sync.Mutex
	customers map[string]store.Customer
	keys      map[string]store.Once
	running   map[string]bool
	events    []Event
	fail      error
	throw     any
	hang      bool
}

var _ handler.Customers = (*Fake)(nil)

// FailWith makes every call return the error, until it is given nil.
func (f *Fake) FailWith(err error) { f.set(func() { f.fail = err }) }

// PanicWith makes every call panic.
func (f *Fake) PanicWith(thrown any) { f.set(func() { f.throw = thrown }) }

// Hang makes every call wait until its context ends, as a call to a stalled database does.
func (f *Fake) Hang() { f.set(func() { f.hang = true }) }

// Run makes a key look as if its first request had not ended.
func (f *Fake) Run(key string) {
	f.set(func() {
		if f.running == nil {
			f.running = make(map[string]bool)
		}
		f.running[key] = true
	})
}

// Events returns what was written so far.
func (f *Fake) Events() []Event {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.events)
}

func (f *Fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// begin takes the lock and does what was demanded; the caller unlocks.
func (f *Fake) begin(ctx context.Context) error {
	f.mu.Lock()
	if f.throw != nil {
		panic(f.throw)
	}
	if f.hang {
		<-ctx.Done()
		return fmt.Errorf("%w: %w", store.ErrUnavailable, ctx.Err())
	}
	return f.fail
}

// Get is Reader's.
func (f *Fake) Get(ctx context.Context, id string) (store.Customer, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx); err != nil {
		return store.Customer{}, err
	}
	return f.find(id, nil)
}

// List is Reader's.
func (f *Fake) List(ctx context.Context, after string, limit int) ([]store.Customer, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx); err != nil {
		return nil, err
	}
	all := slices.SortedFunc(maps.Values(f.customers), func(a, b store.Customer) int { return cmp.Compare(b.ID, a.ID) })
	all = slices.DeleteFunc(all, func(c store.Customer) bool { return after != "" && c.ID >= after })
	return all[:min(limit, len(all))], nil
}

// Create is Writer's.
func (f *Fake) Create(ctx context.Context, c store.Customer, headers map[string]string) error {
	defer f.mu.Unlock()
	if err := f.begin(ctx); err != nil {
		return err
	}
	f.put(store.CustomerCreated, c, headers)
	return nil
}

// CreateOnce is Writer's.
func (f *Fake) CreateOnce(ctx context.Context, c store.Customer, headers map[string]string, once store.Once) (store.Answer, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx); err != nil {
		return store.Answer{}, err
	}
	before, used := f.keys[once.Key]
	switch {
	case f.running[once.Key]:
		return store.Answer{}, store.ErrRunning
	case used && before.RequestHash != once.RequestHash:
		return store.Answer{}, store.ErrKeyReused
	case used:
		return before.Answer, nil
	}
	f.put(store.CustomerCreated, c, headers)
	if f.keys == nil {
		f.keys = make(map[string]store.Once)
	}
	f.keys[once.Key] = once
	return once.Answer, nil
}

// Update is Writer's.
func (f *Fake) Update(ctx context.Context, id string, change store.Change, expect *uint64, headers map[string]string) (store.Customer, error) {
	defer f.mu.Unlock()
	if err := f.begin(ctx); err != nil {
		return store.Customer{}, err
	}
	before, err := f.find(id, expect)
	if err != nil {
		return store.Customer{}, err
	}
	now := before
	if change.Email != nil {
		now.Email = *change.Email
	}
	if change.Name != nil {
		now.Name = *change.Name
	}
	if now != before {
		now.Version, now.UpdatedAt = now.Version+1, present()
		f.put(store.CustomerUpdated, now, headers)
	}
	return now, nil
}

// Delete is Writer's.
func (f *Fake) Delete(ctx context.Context, id string, expect *uint64, headers map[string]string) error {
	defer f.mu.Unlock()
	if err := f.begin(ctx); err != nil {
		return err
	}
	c, err := f.find(id, expect)
	if err != nil {
		return err
	}
	c.Version, c.UpdatedAt = c.Version+1, present()
	f.put(store.CustomerDeleted, c, headers)
	delete(f.customers, id)
	return nil
}

func (f *Fake) find(id string, expect *uint64) (store.Customer, error) {
	c, there := f.customers[id]
	switch {
	case !there:
		return store.Customer{}, store.ErrNotFound
	case expect != nil && *expect != c.Version:
		return store.Customer{}, store.ErrStale
	}
	return c, nil
}

func (f *Fake) put(kind string, c store.Customer, headers map[string]string) {
	if f.customers == nil {
		f.customers = make(map[string]store.Customer)
	}
	f.customers[c.ID] = c
	f.events = append(f.events, Event{Type: kind, Customer: c, Headers: headers})
}

func present() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }
