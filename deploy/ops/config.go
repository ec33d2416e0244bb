package ops

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// Common are the settings that every service has. Embed it in the service's Config.
type Common struct {
	HTTPAddr        string        `name:"http-addr" env:"HTTP_ADDR" default:"${http_addr}" help:"Address of the HTTP server."`
	LogLevel        string        `name:"log-level" env:"LOG_LEVEL" default:"info" help:"Lowest level that is logged: debug, info, warn or error."`
	LogFormat       string        `name:"log-format" env:"LOG_FORMAT" default:"json" help:"Form of the log: json or console."`
	OTLPEndpoint    string        `name:"otlp-endpoint" env:"OTEL_EXPORTER_OTLP_ENDPOINT" help:"Where spans are sent, as http://collector:4318 (OTLP over HTTP). Without it there are none."`
	ShutdownTimeout time.Duration `name:"shutdown-timeout" env:"SHUTDOWN_TIMEOUT" default:"15s" help:"How long a stop may take before what is left is given up."`
}

// Validate tells all that is wrong with the common settings.
func (c Common) Validate() error {
	return errors.Join(
		OneOf("LOG_LEVEL", c.LogLevel, "debug", "info", "warn", "error"),
		OneOf("LOG_FORMAT", c.LogFormat, "json", "console"),
		Positive("SHUTDOWN_TIMEOUT", c.ShutdownTimeout),
		validateEndpoint(c.OTLPEndpoint),
	)
}

// Config is what Parse fills: a struct with kong's tags that can tell all that is wrong with it.
type Config interface{ Validate() error }

// CommandLine is a Config with commands, which are fields with kong's tag cmd: its Validate can ask for the command that was
// given, because not each needs every setting.
type CommandLine interface {
	Validate(given *kong.Context) error
}

// Service says who is being configured.
type Service struct {
	Name        string
	Description string
	HTTPAddr    string // default of HTTP_ADDR
}

// ErrHelp is returned by Parse after it printed the help that was asked for.
var ErrHelp = errors.New("help was asked for")

// Parse fills cfg from the arguments, then the environment, then defaults. A secret X may be given as X_FILE. Every wrong
// value is reported at once, in an error that wraps ErrBadConfig; an unknown flag is an error. On -h it prints all flags
// with their variables and defaults to out and returns ErrHelp.
func Parse(service Service, cfg Config, args []string, out io.Writer) error {
	_, err := parse(service, cfg, args, out)
	return err
}

// ParseCommand is Parse for a service with commands, and tells which one was given, such as "run".
func ParseCommand(service Service, line CommandLine, args []string, out io.Writer) (command string, err error) {
	return parse(service, line, args, out)
}

func parse(service Service, cfg any, args []string, out io.Writer) (command string, err error) {
	if err := secretsFromFiles(reflect.TypeOf(cfg).Elem()); err != nil {
		return "", fmt.Errorf("%w:\n  %w", ErrBadConfig, err)
	}

	var wrong collector
	help := false
	options := append(wrong.mappers(),
		kong.Name(service.Name), kong.Description(service.Description),
		kong.Vars{"http_addr": service.HTTPAddr},
		kong.Writers(out, out),
		kong.Exit(func(int) { help = true }),
	)
	parser, err := kong.New(cfg, options...)
	if err != nil {
		return "", fmt.Errorf("prepare flags: %w", err)
	}

	given, err := parser.Parse(args)
	if help {
		return "", ErrHelp
	}
	// kong has called cfg.Validate, unless it gave up before cfg was filled: then what Validate would say is not true.
	if all := errors.Join(append(wrong.errs, err)...); all != nil {
		return "", fmt.Errorf("%w:\n  %s", ErrBadConfig, strings.Join(once(strings.Split(all.Error(), "\n")), "\n  "))
	}
	return given.Command(), nil
}

// once drops the lines that were there before: one file can be wrong for several settings.
func once(lines []string) []string {
	var kept []string
	for _, line := range lines {
		if !slices.Contains(kept, line) {
			kept = append(kept, line)
		}
	}
	return kept
}

// collector gathers what cannot be read, so that one wrong value does not hide the next.
type collector struct{ errs []error }

// mappers read the values whose form can be wrong.
func (c *collector) mappers() []kong.Option {
	return []kong.Option{
		kong.KindMapper(reflect.Int, c.mapper("a whole number", func(target reflect.Value, text string) error {
			n, err := strconv.ParseInt(text, 10, 0)
			target.SetInt(n)
			return err
		})),
		kong.KindMapper(reflect.Bool, switchMapper{c.mapper("true or false", func(target reflect.Value, text string) error {
			on, err := strconv.ParseBool(text)
			target.SetBool(on)
			return err
		})}),
		kong.TypeMapper(reflect.TypeFor[time.Duration](), c.mapper("a duration such as 200ms, 5s or 24h", func(target reflect.Value, text string) error {
			d, err := time.ParseDuration(text)
			target.SetInt(int64(d))
			return err
		})),
	}
}

func (c *collector) mapper(want string, set func(target reflect.Value, text string) error) kong.Mapper {
	return kong.MapperFunc(func(ctx *kong.DecodeContext, target reflect.Value) error {
		var text string
		if err := ctx.Scan.PopValueInto("value", &text); err != nil {
			return err
		}
		if set(target, text) == nil {
			return nil
		}
		err := fmt.Errorf("%s: %q is not %s", variable(ctx.Value), text, want)
		if !slices.ContainsFunc(c.errs, func(e error) bool { return e.Error() == err.Error() }) {
			c.errs = append(c.errs, err)
		}
		return nil
	})
}

// switchMapper reads a flag that needs no value: --migrate means --migrate=true.
type switchMapper struct{ kong.Mapper }

// IsBool tells kong not to take the next argument for the flag's value.
func (switchMapper) IsBool() bool { return true }

// Decode sets the flag when it stands alone, and reads the value that it or its variable was given otherwise.
func (m switchMapper) Decode(ctx *kong.DecodeContext, target reflect.Value) error {
	token := ctx.Scan.Peek()
	if token.Type != kong.FlagValueToken {
		target.SetBool(true)
		return nil
	}
	if on, ok := token.Value.(bool); ok {
		ctx.Scan.Pop()
		target.SetBool(on)
		return nil
	}
	return m.Mapper.Decode(ctx, target)
}

func variable(value *kong.Value) string {
	if len(value.Tag.Envs) > 0 {
		return value.Tag.Envs[0]
	}
	return "--" + value.Name
}

// OneOf tells when a value is none of those allowed.
func OneOf(name, value string, allowed ...string) error {
	if slices.Contains(allowed, value) {
		return nil
	}
	return fmt.Errorf("%s: %q is not one of %s", name, value, strings.Join(allowed, ", "))
}

// Positive tells when a number or duration is not above zero.
func Positive[T ~int | ~int64](name string, value T) error {
	if value > 0 {
		return nil
	}
	return fmt.Errorf("%s: %v must be above zero", name, value)
}

// Required tells when a value is missing; example shows its form.
func Required[T ~string](name string, value T, example string) error {
	if value != "" {
		return nil
	}
	return fmt.Errorf("%s is not set: give it as a flag or in the environment, for example %s", name, example)
}

// Secret is a setting that is never printed: every way of formatting it gives stars.
type Secret string

// Reveal returns the secret itself.
func (s Secret) Reveal() string { return string(s) }

// String hides the secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return "***"
}

// GoString hides the secret from %#v.
func (s Secret) GoString() string { return s.String() }

// MarshalText hides the secret from JSON and from loggers.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// secretsFromFiles reads X from the file that X_FILE names, for every secret X that is not set itself.
func secretsFromFiles(config reflect.Type) error {
	var errs []error
	for i := range config.NumField() {
		field := config.Field(i)
		if field.Type.Kind() == reflect.Struct {
			errs = append(errs, secretsFromFiles(field.Type))
			continue
		}
		name := field.Tag.Get("env")
		path := os.Getenv(name + "_FILE")
		if field.Type != reflect.TypeFor[Secret]() || path == "" || os.Getenv(name) != "" {
			continue
		}
		content, err := os.ReadFile(path)
		if err == nil {
			err = os.Setenv(name, strings.TrimRight(string(content), "\r\n"))
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s_FILE: %w", name, err))
		}
	}
	return errors.Join(errs...)
}
