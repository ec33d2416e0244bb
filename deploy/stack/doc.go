// Package stack starts private database and broker servers from what the machine has, and treats them as a test or a
// developer needs: start, stop, kill -9, restart, pause and resume, each on its own.
//
// It owns the servers' processes, their folders and the loopback ports they listen on. Its caller owns the data folder
// (Config.Dir) and everything inside the servers: databases, virtual hosts, users.
//
// Promises. Nothing listens on anything but 127.0.0.1. A server is always one that this package started: nothing of the
// system is started, stopped or reconfigured. Servers that are not Detached die with the process that started them, even
// when that one is killed with -9. A server that was killed starts again on the same port with its data; so does one whose
// whole program was killed, from the same Dir. Every process is ended by its own id, never by name.
package stack
