package console

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"sync"
	"time"

	"tailbox/deploy/ops"
)

const (
	workerInterval = 2 * time.Second  // between two questions, while somebody watches
	workerPatience = 3 * time.Second  // for /stats, which a worker answers from memory
	redriveTimeout = 13 * time.Second // the worker gives itself 10 s; our own answer has to be out after 25
	maxWorkerBody  = 2 << 20
)

// worker is what the console knows of a worker: it asks for it on behalf of the page, whose policy lets it talk to its own
// origin only. The token that a person types goes through and is not kept.
type worker struct {
	base   *url.URL // nil: none
	client *http.Client

	mu   sync.Mutex
	last workerNews
}

// workerNews is the document of the event worker.
type workerNews struct {
	Connected bool            `json:"connected"`
	Reason    string          `json:"reason,omitempty"`
	Stats     json.RawMessage `json:"stats,omitempty"` // the worker's GET /stats
}

// Why there is nothing to tell of a worker.
const (
	workerUnset       = "not_configured"
	workerUnasked     = "not_asked_yet" // nobody watched
	workerUnreachable = "unreachable"
)

func newWorker(base *url.URL) *worker {
	w := &worker{base: base, client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 4, IdleConnTimeout: 30 * time.Second}}}
	w.last.Reason = workerUnset
	if base != nil {
		w.last.Reason = workerUnasked
	}
	return w
}

// said is what was heard last.
func (w *worker) said() workerNews {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// run asks the worker for its numbers while anybody watches.
func (w *worker) run(ctx context.Context, watching func() int) {
	defer w.client.CloseIdleConnections()
	if w.base == nil {
		return
	}
	ticker := time.NewTicker(workerInterval)
	defer ticker.Stop()
	for {
		news := workerNews{Reason: workerUnasked}
		if watching() > 0 {
			news = w.news(ctx)
		}
		w.mu.Lock()
		w.last = news
		w.mu.Unlock()
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

func (w *worker) news(ctx context.Context) workerNews {
	stats, err := w.stats(ctx)
	if err != nil {
		return workerNews{Reason: workerUnreachable}
	}
	return workerNews{Connected: true, Stats: stats}
}

func (w *worker) stats(ctx context.Context) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, workerPatience)
	defer cancel()
	status, body, err := w.ask(ctx, http.MethodGet, w.base.JoinPath("/stats"), "", nil)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("ask the worker: status %d", status)
	}
	var compact bytes.Buffer // on one line, or it would not fit an event
	if err := json.Compact(&compact, body); err != nil {
		return nil, fmt.Errorf("ask the worker: %w", err)
	}
	return compact.Bytes(), nil
}

// ask makes one call. The answer is read whole: it is small, or cut off as an error.
func (w *worker) ask(ctx context.Context, method string, at *url.URL, token string, body io.Reader) (status int, answer []byte, err error) {
	request, err := http.NewRequestWithContext(ctx, method, at.String(), body)
	if err != nil {
		return 0, nil, fmt.Errorf("ask the worker: %w", err)
	}
	if token != "" {
		request.Header.Set("Authorization", token)
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := w.client.Do(request)
	if err != nil {
		return 0, nil, fmt.Errorf("ask the worker: %w", err)
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(response.Body, maxWorkerBody+1))
	switch {
	case err != nil:
		return 0, nil, fmt.Errorf("ask the worker: %w", err)
	case len(answer) > maxWorkerBody:
		return 0, nil, errors.New("ask the worker: its answer is too long")
	}
	return response.StatusCode, answer, nil
}

// forward answers a call of the page with the worker's own answer.
func (w *worker) forward(to http.ResponseWriter, r *http.Request, path string) {
	if w.base == nil {
		ops.WriteProblem(to, ops.Problem{Status: http.StatusNotFound, Code: "worker_not_configured", Detail: "WORKER_URL is not set"})
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), redriveTimeout)
	defer cancel()
	at := w.base.JoinPath(path)
	if limit := r.URL.Query().Get("limit"); limit != "" {
		at.RawQuery = url.Values{"limit": {limit}}.Encode()
	}
	var body io.Reader
	if r.Method == http.MethodPost {
		body = http.MaxBytesReader(to, r.Body, ops.MaxBody)
	}
	status, answer, err := w.ask(ctx, r.Method, at, r.Header.Get("Authorization"), body)
	if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
		ops.WriteProblem(to, ops.Problem{Status: http.StatusRequestEntityTooLarge, Detail: "the body is larger than 64 KiB"})
		return
	}
	if err != nil {
		ops.WriteProblem(to, ops.Problem{Status: http.StatusBadGateway, Code: "worker_unreachable", Detail: "the worker at WORKER_URL does not answer"})
		return
	}
	kind := "application/json; charset=utf-8" // whatever it says: it must not become a page of our origin
	if status >= http.StatusBadRequest {
		kind = "application/problem+json; charset=utf-8"
	}
	to.Header().Set("Content-Type", kind)
	to.Header().Set("X-Content-Type-Options", "nosniff")
	to.WriteHeader(status)
	_, _ = to.Write(answer) // the client went away: nobody is left to tell
}
