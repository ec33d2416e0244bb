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
		if target, err := filepath.EvalSymlinks(path); err == nil {
			return target
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

// ownMounts are unshare's arguments for a mount namespace of its own: what is mounted in it is seen by nobody else and is
// gone with the last process in it. So the host's /dev, mounted into the root folder, cannot be deleted through it.
var ownMounts = []string{"--mount", "--propagation", "private", "--"}

// enterScript makes a root folder usable and becomes the program in it: the process that was started is then that program,
// with the same id. The data folder has the same path inside and outside. The root's /tmp is nobody else's.
const enterScript = `root=$1 data=$2
shift 2
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/tmp"
if [ -n "$data" ]; then
	mkdir -p "$root$data"
	mount --bind "$data" "$root$data"
fi
exec chroot "$root" "$@"`

// command is the command line that runs a program of the root with that data folder ("" for none).
func (r *root) command(data, program string, args []string) (string, []string) {
	if r == nil {
		return program, args
	}
	if data != "" && strings.HasPrefix(data, r.base+"/") {
		data = r.base // one mount point for all the folders below, instead of an empty folder left in the root for each
	}
	line := append([]string{}, ownMounts...)
	line = append(line, "sh", "-ec", enterScript, "sh", r.dir, data, program)
	return "unshare", append(line, args...)
}
