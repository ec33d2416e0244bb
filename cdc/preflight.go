package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"

	"tailbox/cdc/binlog"
	"tailbox/deploy/ops"
)

// preflight waits until the source can be reached, and ends the process when its settings, the user's rights or the table
// are not fit: no wait mends them.
func preflight(ctx context.Context, reader *binlog.Reader, log *zap.Logger) error {
	for {
		err := reader.Preflight(ctx)
		if err == nil {
			warn(ctx, reader, log)
			return nil
		}
		if findings := (binlog.Findings)(nil); errors.As(err, &findings) {
			return fmt.Errorf("%w: the source is not fit:\n%w", ops.ErrBadConfig, findings)
		}
		log.Warn("the source is out of reach, trying again", zap.Error(err))
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil
		}
	}
}

// warn logs what is not right and can be lived with.
func warn(ctx context.Context, reader *binlog.Reader, log *zap.Logger) {
	findings, err := reader.Warnings(ctx)
	if err != nil {
		return // the server is gone again: the relay itself will find out
	}
	for _, finding := range findings {
		log.Warn("the source is not as safe as it could be", zap.String("problem", finding.Problem), zap.String("mend", finding.Mend))
	}
}
