# The commands of the house; `make help` lists them. What a newcomer would get wrong: `demo` and `test` install packages and boot
# guests, so they are run with sudo; cargo still runs as the user who called it (contrib/cargo), so that target/ stays theirs.

SHELL     := /bin/bash
CARGO     := contrib/cargo
PREFIX    ?= /usr/local
DESTDIR   ?=
PROGRAM   := target/release/pronto
RING_ARGS ?=

.PHONY: help build demo test unit suite boot hosts compat matrix fixtures bench-builds deps deps-run deps-test fuzz lint fmt doc install uninstall

help: ## this list
	@sed -n 's/^\([a-z][a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

demo: deps-run build ## sudo make demo: set up everything, boot an arm64 Debian, look at it, stop it
	contrib/demo.sh $(PROGRAM)

test: deps-test unit suite boot ## sudo make test: set up everything and run the rings of tests that this host can show

build: ## the release binary
	$(CARGO) build --release --locked

unit: ## the ring that needs nothing
	$(CARGO) test --locked --lib --bins

# Every test target but the rings that boot something: the names are files of tests/, so that a new one is never forgotten.
SUITE := $(filter-out boot host compat,$(basename $(notdir $(wildcard tests/*.rs))))

suite: ## the real binary without guests
	$(if $(SUITE),$(CARGO) test --locked $(addprefix --test ,$(SUITE)))

# Built as the caller, run as root: a guest can be booted by root only.
boot: ## real guests (root); RING_ARGS="-- NAME" for one test
	$(CARGO) test --locked --test boot --no-run
	$(CARGO) --as-root test --locked --test boot $(RING_ARGS)

# QEMU in these machines emulates everything, so they need no virtualization, and take a quarter of an hour.
hosts: deps-test ## whole Debian hosts, emulated, with real guests in them (root); RING_ARGS="-- trixie::limits" for one test
	$(CARGO) test --locked --test host --no-run
	$(CARGO) --as-root test --locked --test host $(RING_ARGS)

# The ring builds static programs for the emulated hosts by itself, as root with the caller's cargo.
compat: deps-test ## the real Xen and its xl, emulated, for arm64 and amd64 (root); RING_ARGS="-- arm64::" for one of them
	$(CARGO) test --locked --test compat --no-run
	$(CARGO) --as-root test --locked --test compat $(RING_ARGS)

# Systems are made once, and kept in the script's own store; the table is written even if a row is bad.
matrix: deps-run build ## boots every architecture and release that can be made here (root); writes docs/matrix.md
	contrib/matrix.sh $(PROGRAM) docs/matrix.md

# The loop that benches/setup.sh makes, so that no file system's journal or its absence is measured.
bench-builds: deps build ## what builds cost: native, emulated, accelerated (root; hours: PACKAGES="hello zlib" for some; ARCH=armhf)
	benches/setup.sh
	benches/builds.sh $(PACKAGES)

fixtures: ## the guests and hosts of the rings alone, into the cache
	$(CARGO) test --locked --test boot --test host --test compat --no-run
	$(CARGO) --as-root test --locked --test boot --test host --test compat -- --prepare

# One target: make fuzz TARGETS=tar FUZZ_SECONDS=600
fuzz: ## the parsers under libFuzzer, FUZZ_SECONDS=30 for each (any Rust; a C++ compiler)
	contrib/fuzz.sh $(TARGETS)

deps: ## every package for building, running and testing
	contrib/install-deps.sh

deps-run:
	contrib/install-deps.sh build run

deps-test:
	contrib/install-deps.sh build run test

lint: ## formatting, clippy and documentation without a warning
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items --quiet

fmt: ## format the code
	$(CARGO) fmt

install: ## the release binary, its names hx and kx, and its completions below PREFIX (build it first; DESTDIR for packagers)
	@test -x $(PROGRAM) || { echo "run make build first" >&2; exit 1; }
	install -D -m 0755 $(PROGRAM) $(DESTDIR)$(PREFIX)/bin/pronto
	ln -sf pronto $(DESTDIR)$(PREFIX)/bin/hx
	ln -sf pronto $(DESTDIR)$(PREFIX)/bin/kx
	install -d $(DESTDIR)$(PREFIX)/share/{bash-completion/completions,zsh/site-functions,fish/vendor_completions.d}
	$(PROGRAM) completions bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/pronto
	$(PROGRAM) completions zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_pronto
	$(PROGRAM) completions fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/pronto.fish

uninstall: ## what install put there (the store in /var/lib/pronto stays)
	rm -f $(DESTDIR)$(PREFIX)/bin/{pronto,hx,kx}
	rm -f $(DESTDIR)$(PREFIX)/share/bash-completion/completions/pronto
	rm -f $(DESTDIR)$(PREFIX)/share/zsh/site-functions/_pronto $(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/pronto.fish
