package console

import (
	"errors"
	"net/http"
	"sync"
	"time"

	"tailbox/deploy/ops"
)

const (
	maxWatchers  = 512
	watcherQueue = 8               // frames that wait for a slow reader before it is dropped
	frameTimeout = 5 * time.Second // for one frame to be taken by the system
)

// watchers are the open pages: who listens to GET /events. Each frame is encoded once and handed to all of them, so that
// many cost little more than one; who does not read in time is dropped, so that nobody can hold up the others or fill the
// memory.
type watchers struct {
	mu     sync.Mutex
	open   map[*watcher]struct{}
	closed bool
}

// watcher is one connection.
type watcher struct {
	frames chan []byte
	gone   chan struct{} // closed when it is dropped
	conn   *http.ResponseController
}

// send gives a frame to all. It never waits.
func (ws *watchers) send(frame []byte) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for w := range ws.open {
		select {
		case w.frames <- frame:
		default:
			ws.drop(w)
		}
	}
}

// drop ends a watcher's connection, even in the middle of a write. The mutex is held.
func (ws *watchers) drop(w *watcher) {
	delete(ws.open, w)
	close(w.gone)
	_ = w.conn.SetWriteDeadline(time.Now()) // where it cannot be set, the write ends by itself
}

// count is how many there are.
func (ws *watchers) count() int {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	return len(ws.open)
}

// close drops all and lets no one in any more: a stop does not wait for pages that are left open.
func (ws *watchers) close() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.closed = true
	for w := range ws.open {
		ws.drop(w)
	}
}

var errTooMany = errors.New("too many open pages")
var errStopping = errors.New("stopping")

func (ws *watchers) enter(w *watcher) error {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	switch {
	case ws.closed:
		return errStopping
	case len(ws.open) >= maxWatchers:
		return errTooMany
	}
	ws.open[w] = struct{}{}
	return nil
}

func (ws *watchers) leave(w *watcher) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	delete(ws.open, w)
}

// serve answers GET /events: the greeting, then every frame, until the client or the relay goes. The limits that hold for
// other answers are lifted for this connection: each frame has one of its own instead. A frame comes every interval,
// so that no heartbeat is needed beside it.
func (ws *watchers) serve(w http.ResponseWriter, r *http.Request, greeting func() []byte) {
	watcher := &watcher{frames: make(chan []byte, watcherQueue), gone: make(chan struct{}), conn: http.NewResponseController(w)}
	if err := ws.enter(watcher); err != nil {
		w.Header().Set("Retry-After", "10")
		ops.WriteProblem(w, ops.Problem{Status: http.StatusServiceUnavailable, Code: "not_now", Detail: err.Error()})
		return
	}
	defer ws.leave(watcher)

	header := w.Header()
	header.Set("Content-Type", "text/event-stream; charset=utf-8")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Accel-Buffering", "no") // or nginx holds frames back
	for frame := greeting(); ws.allow(watcher); {
		if _, err := w.Write(frame); err != nil || watcher.conn.Flush() != nil {
			return
		}
		select {
		case frame = <-watcher.frames:
		case <-watcher.gone:
		case <-r.Context().Done():
			return
		}
	}
}

// allow gives a watcher time to take the next frame, unless it was dropped.
func (ws *watchers) allow(w *watcher) bool {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if _, open := ws.open[w]; !open {
		return false
	}
	_ = w.conn.SetWriteDeadline(time.Now().Add(frameTimeout)) // a server without deadlines has none to move
	return true
}
