package stack

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// API calls the broker's management API as guest. The path begins behind /api, as in "/vhosts/%2F"; body is sent as JSON
// unless it is nil. It returns the answer's body; a status that is not 2xx is an error with that body in it. Statistics
// are switched off: what counts or lists messages and connections answers with less than it could.
func (r *RabbitMQ) API(ctx context.Context, method, path string, body any) ([]byte, error) {
	var payload io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode %s %s: %w", method, path, err)
		}
		payload = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://"+loopback(r.port[portManagement])+"/api"+path, payload)
	if err != nil {
		return nil, fmt.Errorf("make request %s %s: %w", method, path, err)
	}
	req.SetBasicAuth("guest", "guest")
	req.Header.Set("Content-Type", "application/json")
	req.Close = true // no idle connection is left behind, neither to a broker that is killed next nor for a leak check

	answer, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("call broker: %w", err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return nil, fmt.Errorf("read answer to %s %s: %w", method, path, err)
	}
	if answer.StatusCode/100 != 2 {
		return text, fmt.Errorf("%s %s: %s: %s", method, path, answer.Status, bytes.TrimSpace(text))
	}
	return text, nil
}

// CloseConnections makes the broker close every connection of the user guest, as an administrator would: the clients
// receive code 320, CONNECTION_FORCED. One that was opened within the last moments may be missed. The API answers 500 when a
// connection ends by itself between being listed and being closed, and has then closed only some: it is asked again.
func (r *RabbitMQ) CloseConnections(ctx context.Context) error {
	const tries = 5
	var err error
	for range tries {
		if _, err = r.API(ctx, http.MethodDelete, "/connections/username/guest", nil); err == nil {
			return nil
		}
	}
	return fmt.Errorf("close connections: %w", err)
}

// CreateVhost makes a virtual host in which guest may do everything. It is not an error when there is one already.
func (r *RabbitMQ) CreateVhost(ctx context.Context, name string) error {
	if _, err := r.API(ctx, http.MethodPut, "/vhosts/"+url.PathEscape(name), struct{}{}); err != nil {
		return fmt.Errorf("create vhost %s: %w", name, err)
	}
	return nil
}

// DeleteVhost deletes a virtual host with all that is in it, and closes the connections to it.
func (r *RabbitMQ) DeleteVhost(ctx context.Context, name string) error {
	if _, err := r.API(ctx, http.MethodDelete, "/vhosts/"+url.PathEscape(name), nil); err != nil {
		return fmt.Errorf("delete vhost %s: %w", name, err)
	}
	return nil
}
