package stack

import (
	"context"
	"errors"
)

func newestRoot(ctx context.Context, cfg Config) (*root, error) { return nil, errors.New("not yet") }

func (r *root) command(data, path string, args []string) (string, []string) { return path, args }
