package main

import (
	"context"
	"sync"
	"time"

	"tailbox/cdc/checkpoint"
	"tailbox/cdc/relay"
)

// rollCall tells the other instances that this one lives, and knows which of them do. It is for people: nothing depends on it.
type rollCall struct {
	store    *checkpoint.Store
	serverID uint32
	engine   *relay.Relay
	mu       sync.Mutex
	members  []checkpoint.Member
}

func newRollCall(store *checkpoint.Store, serverID uint32, engine *relay.Relay) *rollCall {
	return &rollCall{store: store, serverID: serverID, engine: engine}
}

// last is who was there at the last call.
func (r *rollCall) last() []checkpoint.Member {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.members
}

// begin calls every interval, until the end that it returns is called, which says farewell.
func (r *rollCall) begin(ctx context.Context) (end func()) {
	calling, stop := context.WithCancel(context.WithoutCancel(ctx)) // a relay that drains is there still
	var group sync.WaitGroup
	group.Go(func() {
		for {
			pause := checkpoint.MemberInterval
			// Who is announced has seen the relay's row: a row that is missing later was deleted.
			if state := r.engine.Status().State; state == relay.Starting {
				pause /= 20
			} else {
				r.call(calling, string(state))
			}
			select {
			case <-time.After(pause):
			case <-calling.Done():
				return
			}
		}
	})
	return func() {
		stop()
		group.Wait()
		if r.engine.Status().State != relay.Starting {
			r.call(context.WithoutCancel(ctx), "stopped")
		}
	}
}

// call announces this instance and asks for the others. A database that does not answer leaves the last answer standing.
func (r *rollCall) call(ctx context.Context, state string) {
	ctx, cancel := context.WithTimeout(ctx, checkpoint.MemberInterval)
	defer cancel()
	if err := r.store.Announce(ctx, r.serverID, state); err != nil {
		return
	}
	members, err := r.store.Members(ctx)
	if err != nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.members = members
}
