# Everything that is done with this project. `make` alone lists it.
# SERVERS=system (default): what the machine has. SERVERS=newest: MySQL and RabbitMQ of Debian sid, in a folder.

.DEFAULT_GOAL := help
SHELL := /bin/bash
DEV := mkdir -p .run && go build -o .run/dev ./deploy/dev && exec .run/dev
# Tests kill servers, they do not cut the power: their data lives in memory where there is enough of it.
MEMORY := $(shell df -k --output=avail /dev/shm 2>/dev/null | awk 'NR == 2 && $$1 > 4000000 {print "TMPDIR=/dev/shm GOTMPDIR=/tmp"}')
FUZZTIME := 60s
FUZZ := cdc/outbox:FuzzRow cdc/checkpoint:FuzzDecode cdc/binlog:FuzzEvents
GOLANGCI_LINT := go run github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: dev
dev: ## MySQL, RabbitMQ and the services, in the foreground; Ctrl-C stops all, the data is kept; RELAYS=2 runs a standby
	@$(DEV) up

.PHONY: infras
infras: ## only MySQL and RabbitMQ, in the background
	@$(DEV) infras

.PHONY: build
build: ## bin/api, bin/cdc, bin/worker
	CGO_ENABLED=0 go build -trimpath -o bin/ ./api ./cdc ./worker

.PHONY: test
test: ## all tests, on real servers that are started for them
	@export $(MEMORY); $(DEV) test go test -count=1 -timeout 45m $$(go list ./... | grep -v /deploy/e2e)
	@$(MEMORY) go test -count=1 -timeout 45m ./deploy/e2e # alone: it measures how long a recovery takes

.PHONY: race
race: ## the same under the race detector, without the end-to-end tests
	@export $(MEMORY); SCHEDULES=500 $(DEV) test go test -race -timeout 45m $$(go list ./... | grep -v /deploy/e2e)

.PHONY: e2e
e2e: ## the end-to-end and fault tests; COUNT=full runs the full counts instead of a tenth
	$(MEMORY) go test -count=1 -v -timeout 150m ./deploy/e2e

.PHONY: bench
bench: ## latency from POST to effect, relay and session beside a plain publisher, strict order, the worker by batch
	go test -count=1 -run '^$$' -bench . -benchtime 1x -timeout 60m ./deploy/bench

.PHONY: fuzz
fuzz: ## row decoding, checkpoint decoding and the path of binlog events, each for FUZZTIME (60s)
	@set -e; for target in $(FUZZ); do \
		go test ./$${target%:*} -run '^$$' -fuzz "^$${target#*:}\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 20x; \
	done

.PHONY: lint
lint: ## go vet, golangci-lint, go.mod tidy
	go vet ./...
	$(GOLANGCI_LINT) run
	go mod tidy -diff

.PHONY: up
up: ## the whole stack in Docker Compose
	docker compose up -d --build --wait

.PHONY: down
down: ## stop it; the data is kept
	docker compose down

.PHONY: clean
clean: ## stop what runs, delete bin, .run and the containers with their data
	@$(DEV) clean
