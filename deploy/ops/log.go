package ops

import (
	"fmt"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Logger writes to standard error, one line per entry: JSON, or columns for a person. Times are RFC 3339 in UTC.
func Logger(c Common, service string) (*zap.Logger, error) {
	level, err := zapcore.ParseLevel(c.LogLevel)
	if err != nil {
		return nil, fmt.Errorf("%w: LOG_LEVEL: %w", ErrBadConfig, err)
	}
	cfg := zap.NewProductionConfig()
	cfg.Level = zap.NewAtomicLevelAt(level)
	cfg.Encoding = c.LogFormat
	cfg.DisableStacktrace = true
	cfg.DisableCaller = true
	cfg.Sampling = nil
	cfg.EncoderConfig.TimeKey = "time"
	cfg.EncoderConfig.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	if c.LogFormat == "console" {
		cfg.EncoderConfig.TimeKey = "" // who merges logs for a person writes the time
		cfg.EncoderConfig.EncodeLevel = zapcore.CapitalLevelEncoder
		return build(cfg)
	}
	log, err := build(cfg)
	if err != nil {
		return nil, err
	}
	return log.With(zap.String("service", service)), nil
}

func build(cfg zap.Config) (*zap.Logger, error) {
	log, err := cfg.Build()
	if err != nil {
		return nil, fmt.Errorf("build logger: %w", err)
	}
	return log, nil
}
