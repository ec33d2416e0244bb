package console_test

import (
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"tailbox/cdc/console"
)

// TestEveryStateAndReasonIsPutIntoWords reads the names from the relay's own source, so that a new one cannot be forgotten.
func TestEveryStateAndReasonIsPutIntoWords(t *testing.T) {
	t.Parallel()
	words := setup().get(t, "/assets/words.js").Body.String()
	states, reasons, _ := strings.Cut(words, "export const reasons")
	file, err := parser.ParseFile(gotoken.NewFileSet(), filepath.Join("..", "relay", "state.go"), nil, 0)
	require.NoError(t, err)
	found := 0
	ast.Inspect(file, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		literal, isLiteral := spec.Values[0].(*ast.BasicLit)
		kind, isNamed := spec.Type.(*ast.Ident)
		if !isLiteral || !isNamed {
			return true
		}
		name, err := strconv.Unquote(literal.Value)
		require.NoError(t, err)
		table := map[string]string{"State": states, "Reason": reasons}[kind.Name]
		require.Contains(t, table, "\n  "+name+": {", "words.js says nothing about %s %s", kind.Name, name)
		found++
		return true
	})
	require.Greater(t, found, 20)
}

var (
	loaded  = regexp.MustCompile(`(?:src|href)="([^"]+)"|from '\./([^']+)'`)
	foreign = regexp.MustCompile(`https?://[^\s'"]+`)
	inline  = regexp.MustCompile(`(?i)\sstyle=|\son[a-z]+=|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function`)
)

// TestThePageNeedsNothingFromElsewhere follows what the page and its scripts load, all of which this server has to have.
func TestThePageNeedsNothingFromElsewhere(t *testing.T) {
	t.Parallel()
	b := setup()
	page := b.get(t, "/")
	require.Equal(t, http.StatusOK, page.Code)
	policy := page.Header().Get("Content-Security-Policy")
	for _, part := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "img-src 'self' data:", "frame-ancestors 'none'"} {
		require.Contains(t, policy, part)
	}
	require.NotContains(t, policy, "unsafe")

	files, err := os.ReadDir("page")
	require.NoError(t, err)
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join("page", file.Name()))
		require.NoError(t, err)
		for _, match := range loaded.FindAllStringSubmatch(string(text), -1) {
			at := match[1]
			if at == "" {
				at = "assets/" + match[2]
			}
			if strings.HasPrefix(at, "#") {
				continue
			}
			answer := b.get(t, "/"+at)
			if at != "readyz" { // which depends
				require.Equal(t, http.StatusOK, answer.Code, "%s loads %s", file.Name(), at)
			}
		}
		if strings.HasPrefix(file.Name(), "uplot") {
			continue
		}
		require.Empty(t, inline.FindString(string(text)), "%s: the policy forbids it, or it could run what an event says", file.Name())
		for _, address := range foreign.FindAllString(string(text), -1) {
			require.Equal(t, "http://www.w3.org/2000/svg", address, file.Name())
		}
	}
}

func TestAPageThatTheBrowserHasIsNotSentAgain(t *testing.T) {
	t.Parallel()
	r := setup().run(t, console.Config{}, nil)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://relay/assets/uplot.js", nil)
	require.NoError(t, err)
	first, err := r.client.Do(request)
	require.NoError(t, err)
	require.NoError(t, first.Body.Close())
	require.Equal(t, "text/javascript; charset=utf-8", first.Header.Get("Content-Type"))
	request.Header.Set("If-None-Match", first.Header.Get("ETag"))
	again, err := r.client.Do(request)
	require.NoError(t, err)
	require.NoError(t, again.Body.Close())
	require.Equal(t, http.StatusNotModified, again.StatusCode)
}
