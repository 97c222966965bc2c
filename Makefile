# Ferry's tasks. make help lists them.

GO       ?= go
# How long make fuzz spends on each fuzzer, or how many inputs it tries: 1000x.
FUZZTIME ?= 10s
# Where make screenshots writes what docs does not show.
PICTURES ?= pictures
# The same for every run, so that results and builds are cached once.
TESTFLAGS ?= -timeout=20m
LINT     := $(GO) tool -modfile=tools/golangci-lint/go.mod golangci-lint

export REDOCLY_TELEMETRY = off

.PHONY: help
help: ## List the tasks
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

.PHONY: run
run: ## Run server and gateway on this machine: ferry up
	$(GO) run ./cmd/ferry up

.PHONY: deps
deps: ## Install what the tests need beside Go, where it is missing
	@$(GO) run ./tools/deps

.PHONY: test
test: deps ## Run all tests
	$(GO) test $(TESTFLAGS) ./...

.PHONY: check
check: format vet fix lint unchanged api race fuzz ## Run everything else that must hold before a change lands

.PHONY: format
format: ## Fail on files that gofmt would change
	@files=$$(gofmt -l .) && if [ -n "$$files" ]; then echo "gofmt would change:"; echo "$$files"; exit 1; fi

.PHONY: vet
vet:
	$(GO) vet ./...

.PHONY: fix
fix: ## Fail on code that go fix would modernise
	@diff=$$($(GO) fix -diff ./...) && if [ -n "$$diff" ]; then echo "$$diff"; exit 1; fi

.PHONY: lint
lint: ## Run golangci-lint, in the version that tools/golangci-lint pins
	$(LINT) run ./...

.PHONY: generate
generate: ## Write the generated files anew: api/openapi.yaml
	$(GO) generate ./...

.PHONY: unchanged
unchanged: ## Fail if generated files or go.mod are not up to date
	$(GO) mod tidy -diff
	@before=$$(mktemp) && trap 'rm -f "$$before"' EXIT && cp api/openapi.yaml "$$before" && \
		$(MAKE) --no-print-directory generate && \
		diff -u "$$before" api/openapi.yaml || { echo "api/openapi.yaml was out of date; it has been written anew: commit it"; exit 1; }

.PHONY: api
api: deps ## Check api/openapi.yaml with Redocly
	tools/npm/node_modules/.bin/redocly lint api/openapi.yaml

# internal/e2e runs real processes that are built without the race detector:
# under it, it would show nothing more.
.PHONY: race
race: deps ## Run the tests with the race detector, shuffled
	$(GO) test $(TESTFLAGS) -race -shuffle=on $$($(GO) list ./... | grep -v /internal/e2e)

# Each package's tests are built once, with what the fuzzer counts in them, and
# not for each fuzzer anew.
.PHONY: fuzz
fuzz: ## Run each fuzzer for FUZZTIME (10s)
	@dir=$$(mktemp -d) && trap 'rm -rf "$$dir"' EXIT && cache=$$($(GO) env GOCACHE)/fuzz && \
	for package in $$(grep -rl --include='*_test.go' --exclude-dir=node_modules '^func Fuzz' . | xargs -n 1 dirname | sort -u); do \
		$(GO) test -c -fuzz=. -o "$$dir/fuzz" "$$package" || exit 1; \
		for fuzzer in $$(grep -ho '^func Fuzz[A-Za-z0-9_]*' "$$package"/*_test.go | sed 's/^func //'); do \
			echo "$$package $$fuzzer" && (cd "$$package" && "$$dir/fuzz" -test.run='^$$' -test.fuzz="^$$fuzzer\$$" -test.fuzztime=$(FUZZTIME) \
				-test.fuzzminimizetime=20x -test.fuzzcachedir="$$cache/ferry/$${package#./}") || exit 1; \
		done; \
	done

.PHONY: bench
bench: ## Measure beside scp, rsync, nginx and simpler handlers, for docs/performance.md
	@$(GO) run ./tools/deps bench
	$(GO) run ./internal/bench

# What else runs makes the page slower than it is: it is no test of every run.
.PHONY: lighthouse
lighthouse: deps ## Have Lighthouse say how fast the page is; fails below 95 of 100
	$(GO) test -count=1 -v -run='^TestPagePerformance$$' ./internal/e2e -args -performance

.PHONY: swagger-ui
swagger-ui: FROM = tools/npm/node_modules/swagger-ui-dist
swagger-ui: TO = web/static/docs/swagger-ui
swagger-ui: deps ## Copy Swagger UI from npm, in the version that tools/npm pins
	install -m 644 $(FROM)/swagger-ui-bundle.js $(FROM)/swagger-ui-bundle.js.LICENSE.txt $(FROM)/swagger-ui.css $(TO)
	install -m 644 $(FROM)/LICENSE $(TO)/LICENSE.txt
	install -m 644 $(FROM)/NOTICE $(TO)/NOTICE.txt

.PHONY: screenshots
screenshots: deps ## Take docs/images anew, and PICTURES (./pictures) of more states and of each language
	@$(GO) run ./tools/deps screenshots
	$(GO) test -count=1 -run='^TestPage(States|SignIn|Thousands|History|Languages)$$' ./internal/e2e -args \
		-screenshots=$(CURDIR)/docs/images -page-pictures=$(abspath $(PICTURES)) -language-pictures=$(abspath $(PICTURES))
