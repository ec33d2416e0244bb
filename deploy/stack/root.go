package stack

import (
	"os"
	"path/filepath"
	"strings"
)

// systemPath is where programs are looked for besides PATH, which for an ordinary user often lacks the sbin folders.
const systemPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/libexec:/usr/local/mysql/bin:/opt/homebrew/bin"

// root is a folder with a whole system in it, whose programs are run as if that folder were /. The nil root is this
// machine itself.
type root struct {
	dir  string
	base string // bound into the root, with all data folders below it
}

// path is the root's folder, "" for the machine itself.
func (r *root) path() string {
	if r == nil {
		return ""
	}
	return r.dir
}

// programs lists the executables of that name, as seen from inside, without those that are links to one found before.
func (r *root) programs(name string) []string {
	search := systemPath
	if r == nil {
		search = os.Getenv("PATH") + ":" + systemPath
	}
	var found []string
	seen := map[string]bool{}
	for dir := range strings.SplitSeq(search, ":") {
		path := r.resolve(filepath.Join(dir, name))
		info, err := os.Stat(r.path() + path)
		if dir == "" || err != nil || info.IsDir() || info.Mode()&0o111 == 0 || seen[path] {
			continue
		}
		seen[path] = true
		found = append(found, path)
	}
	return found
}

// resolve follows links the way the root sees them: their targets begin at the root's folder.
func (r *root) resolve(path string) string {
	if r == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			return real
		}
		return path
	}
	for range 16 {
		target, err := os.Readlink(r.dir + path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		path = filepath.Clean(target)
	}
	return path
}
