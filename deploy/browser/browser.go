// Package browser lets tests look at pages in a headless Chromium of their own, as a person would: by what is shown, clicked
// and typed. It owns the browser's process and profile, which are gone when the test ends. Everything that a page complains of
// in its console is kept: a script that fails, or that the page's policy stops, is not seen otherwise.
package browser

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"

	"tailbox/deploy/stack"
)

// patience is how long a page may take to show something.
const patience = 20 * time.Second

// Page is one tab.
type Page struct {
	t   testing.TB
	ctx context.Context

	mu         sync.Mutex
	complaints []string
}

// Open starts a browser with an empty page. Chromium is taken from PATH, or installed.
func Open(t testing.TB) *Page {
	t.Helper()
	path, err := stack.Program(t.Context(), os.Stderr, "the console's tests look at it in a browser", []string{"chromium", "chromium-browser", "google-chrome"}, "chromium")
	require.NoError(t, err)
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox) // root has no sandbox
	allocated, stop := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, _ := chromedp.NewContext(allocated)
	p := &Page{t: t, ctx: ctx}
	messages := chromedp.Console(ctx)
	var listening sync.WaitGroup
	listening.Go(func() { p.listen(messages) })
	t.Cleanup(func() {
		_ = chromedp.Cancel(ctx) // it may be gone already
		stop()
		listening.Wait()
	})
	require.NoError(t, chromedp.Do(ctx), "start the browser")
	return p
}

// Size sets the size of the window, and whether the system has a dark theme.
func (p *Page) Size(width, height int, dark bool) {
	p.t.Helper()
	scheme := "light"
	if dark {
		scheme = "dark"
	}
	media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}}
	p.do(chromedp.EmulateViewport(int64(width), int64(height)))
	_, err := chromedp.Call(p.ctx, emulation.SetEmulatedMedia, media)
	require.NoError(p.t, err)
}

// Go opens an address.
func (p *Page) Go(url string) {
	p.t.Helper()
	p.do(chromedp.Navigate(url))
}

// Click clicks on what a CSS selector finds, as soon as it is visible.
func (p *Page) Click(selector string) {
	p.t.Helper()
	p.do(chromedp.Click(chromedp.CSS(selector), chromedp.NodeVisible))
}

// Type types into what a CSS selector finds, as soon as it is visible.
func (p *Page) Type(selector, text string) {
	p.t.Helper()
	p.do(chromedp.SendKeys(chromedp.CSS(selector), text, chromedp.NodeVisible))
}

// Press presses a key, by its name: Tab, Enter, Escape.
func (p *Page) Press(key string) {
	p.t.Helper()
	p.do(chromedp.KeyEvent(map[string]string{"Tab": kb.Tab, "Enter": kb.Enter, "Escape": kb.Escape}[key]))
}

// Text is what an element shows, empty when it is hidden or not there.
func (p *Page) Text(selector string) string {
	p.t.Helper()
	return Evaluate[string](p, fmt.Sprintf("document.querySelector(%q)?.innerText ?? ''", selector))
}

// WaitFor waits until an element shows a text that has these words in it.
func (p *Page) WaitFor(selector, words string) {
	p.t.Helper()
	last := ""
	require.Eventually(p.t, func() bool {
		last = p.Text(selector)
		return strings.Contains(last, words)
	}, patience, 50*time.Millisecond, "%s to show %q", selector, words)
}

// Evaluate runs JavaScript in the page and gives its value.
func Evaluate[T any](p *Page, expression string) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	require.NoError(p.t, err, expression)
	return value
}

// Picture is the whole page as a PNG.
func (p *Page) Picture() []byte {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	png, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	require.NoError(p.t, err)
	return png
}

// Complaints are the errors and warnings in the page's console so far.
func (p *Page) Complaints() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string{}, p.complaints...)
}

func (p *Page) listen(messages func(func(chromedp.ConsoleMessage, error) bool)) {
	for message, err := range messages {
		if err != nil {
			return
		}
		if message.IsException() || message.Type == "error" || message.Type == "warning" {
			p.mu.Lock()
			p.complaints = append(p.complaints, message.Text)
			p.mu.Unlock()
		}
	}
}

func (p *Page) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	require.NoError(p.t, chromedp.Do(ctx, steps...))
}
