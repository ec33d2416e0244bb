package stack

import (
	"context"
	"fmt"
	"io"
	"os/exec"
)

// Program finds one of the programs in PATH, the first of the names that is there, and installs the packages that have it
// where none is, as servers are installed: with a line to out that says why. An error tells what to install by hand.
func Program(ctx context.Context, out io.Writer, why string, names []string, packages ...string) (path string, err error) {
	find := func() error {
		for _, name := range names {
			if path, err = exec.LookPath(name); err == nil {
				return nil
			}
		}
		return err
	}
	if find() == nil {
		return path, nil
	}
	missing := func(context.Context) bool { return find() != nil }
	if err := aptInstall(ctx, out, wanted{why: why, choices: [][]string{packages}, missing: missing}); err != nil {
		return "", fmt.Errorf("find %s: %w", names[0], err)
	}
	if err := find(); err != nil {
		return "", fmt.Errorf("find %s, which %s should have brought: %w", names[0], packages[0], err)
	}
	return path, nil
}
