package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"tailbox/deploy/ops"
)

// remote is how the commands of operators reach the relay that they are for: a running one, by its HTTP calls.
type remote struct {
	URL  string `name:"url" env:"CDC_URL" default:"http://127.0.0.1:3001" help:"Where the relay answers HTTP."`
	JSON bool   `name:"json" help:"Print the relay's answer as it is, one JSON document."`
}

// remoteTimeout is longer than the relay lets any call take.
const remoteTimeout = 70 * time.Second

func (r remote) validate() error {
	if u, err := url.Parse(r.URL); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return errors.New("CDC_URL is not of the form http://host:3001")
	}
	return nil
}

// call makes one call and gives the answer's body. What the relay refuses becomes an error with its words.
func (r remote) call(ctx context.Context, token ops.Secret, method, path string, body any) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, remoteTimeout)
	defer cancel()
	var content []byte
	if body != nil {
		var err error
		if content, err = json.Marshal(body); err != nil {
			return nil, fmt.Errorf("encode the call: %w", err)
		}
	}
	request, err := http.NewRequestWithContext(ctx, method, strings.TrimRight(r.URL, "/")+path, bytes.NewReader(content))
	if err != nil {
		return nil, fmt.Errorf("prepare the call: %w", err)
	}
	request.Header.Set("X-Actor", caller())
	if token != "" {
		request.Header.Set("Authorization", "Bearer "+token.Reveal())
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, Proxy: http.ProxyFromEnvironment}}
	answer, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("ask the relay: %w", err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 64<<20))
	if err != nil {
		return nil, fmt.Errorf("read the relay's answer: %w", err)
	}
	if answer.StatusCode != http.StatusOK {
		return nil, refusal(answer.StatusCode, text)
	}
	return text, nil
}

// refusal is what the relay said no with. A token that is missing or wrong is a matter of configuration.
func refusal(status int, body []byte) error {
	var problem ops.Problem
	_ = json.Unmarshal(body, &problem) // who answered may not be the relay: then there is only the status
	said := []string{}
	if problem.Detail != "" {
		said = append(said, problem.Detail)
	}
	for _, field := range problem.Errors {
		said = append(said, field.Field+" "+field.Detail)
	}
	if problem.Code != "" {
		said = append(said, "("+problem.Code+")")
	}
	err := fmt.Errorf("the relay answers %d: %s", status, strings.Join(said, " "))
	if status == http.StatusUnauthorized || status == http.StatusForbidden {
		return fmt.Errorf("%w: %w", ops.ErrBadConfig, err)
	}
	return err
}

// caller is who makes the call, for the audit.
func caller() string {
	user := os.Getenv("USER")
	if user == "" {
		user = "unknown"
	}
	if host, err := os.Hostname(); err == nil {
		user += "@" + host
	}
	return user
}
