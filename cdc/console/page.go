package console

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strings"
)

//go:embed page
var pageFiles embed.FS

// policy lets the page load what this server serves and nothing else, and talk to nobody else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// asset is one file of the page, as it is sent.
type asset struct {
	body []byte
	kind string
	etag string
}

// servePage adds the page at / and its files below /assets/.
func servePage(mux *http.ServeMux) {
	files, err := fs.Glob(pageFiles, "page/*")
	if err != nil {
		panic("console: " + err.Error()) // the pattern is ours
	}
	for _, file := range files {
		name := path.Base(file)
		pattern := "GET /assets/" + name
		if name == "index.html" {
			pattern = "GET /{$}"
		}
		mux.Handle(pattern, readAsset(file))
	}
}

func readAsset(file string) *asset {
	body, err := pageFiles.ReadFile(file)
	if err != nil {
		panic("console: " + err.Error()) // it was listed
	}
	kind := mime.TypeByExtension(path.Ext(file))
	if path.Ext(file) == ".js" { // some systems know another name
		kind = "text/javascript; charset=utf-8"
	}
	if kind == "" {
		kind = "text/plain; charset=utf-8"
	}
	sum := sha256.Sum256(body)
	return &asset{body: body, kind: kind, etag: `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`}
}

// ServeHTTP sends the file, unless the browser has it: a page that is reloaded costs a few headers.
func (a *asset) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	header := w.Header()
	header.Set("Content-Security-Policy", policy)
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("Cache-Control", "no-cache")
	header.Set("ETag", a.etag)
	if strings.Contains(r.Header.Get("If-None-Match"), a.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	header.Set("Content-Type", a.kind)
	_, _ = w.Write(a.body) // the client went away: nobody is left to tell
}
