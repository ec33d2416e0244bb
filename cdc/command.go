package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"

	"github.com/alecthomas/kong"

	"tailbox/deploy/ops"
)

// commandLine is the settings, which stand before or behind a command, and the commands.
type commandLine struct {
	Config

	Run    struct{} `cmd:"" default:"1" help:"Relay. This is what cdc does when it is given no command."`
	Doctor struct {
		JSON bool `name:"json" help:"Print one JSON document instead of a line for each check."`
	} `cmd:"" help:"Check the source, the user's rights, the tables, the checkpoint and the broker, and print what mends what is wrong. Changes nothing; exits with 1 when a check fails."`
	Version struct{} `cmd:"" help:"Print the version."`

	remoteCommands
}

// Names of the commands, as they are given.
const (
	commandRun     = "run"
	commandDoctor  = "doctor"
	commandVersion = "version"
)

// Validate implements ops.CommandLine.
func (c *commandLine) Validate(given *kong.Context) error {
	command := given.Command()
	if _, is := c.remote(command); is {
		return c.remoteCommands.validate(command)
	}
	if command == commandVersion {
		return nil
	}
	return c.Config.validate()
}

// command does what the command line says; what a command prints goes to out.
func command(ctx context.Context, args []string, out io.Writer) error {
	service := ops.Service{
		Name:        "cdc",
		Description: "Publishes what is inserted into a MySQL outbox table to RabbitMQ, as it is committed.",
		HTTPAddr:    ":3001",
	}
	var line commandLine
	given, err := ops.ParseCommand(service, &line, args, out)
	if errors.Is(err, ops.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	if call, is := line.remote(given); is {
		return call.run(ctx, line.AdminToken, out)
	}
	switch given {
	case commandDoctor:
		return doctor(ctx, line.Config, line.Doctor.JSON, out)
	case commandVersion:
		_, err := fmt.Fprintln(out, version())
		return err
	default:
		return run(ctx, line.Config)
	}
}

// version is the module's version, or the commit that the program was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "cdc of an unknown version"
	}
	text := "cdc " + info.Main.Version
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			text += " " + setting.Value
		}
	}
	return text + " " + info.GoVersion
}
