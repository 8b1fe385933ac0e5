# Two commands matter: make demo, make test. The rest serves them; `make help` lists everything.
#
# Everything is compiled with cargo's dev profile (dependencies optimised), so that demo, tests and images share one build.
# Only benchmarks are compiled for release.

SHELL := /bin/bash
TARGET := $(or $(CARGO_TARGET_DIR),target)
# What demo and tests run: compiled once, used by the native stack and copied into the images.
export STACK_PROGRAMS := $(abspath $(TARGET)/debug)
export IMAGES_PROGRAMS := $(STACK_PROGRAMS)
# Where `make faults` and `make chaos` run; compose needs an engine (deploy/engine.sh up).
BACKEND ?= native

.DEFAULT_GOAL := help
.PHONY: help demo down status test faults faults-native faults-compose chaos secure-compose fuzz check audit sbom bench bench-quick \
	release cargo toolchain programs

help: ## Shows this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 20

demo: programs ## Starts the whole system, shows it at work, leaves it up (DEMO_BACKEND=native|compose)
	@$(STACK_PROGRAMS)/demo up

down: $(STACK_PROGRAMS)/demo ## Removes what `make demo` started: processes, containers, volumes, directories
	@$(STACK_PROGRAMS)/demo down

status: $(STACK_PROGRAMS)/demo ## Says what `make demo` has left up
	@$(STACK_PROGRAMS)/demo status

test: cargo ## Every test, from unit tests to end-to-end scenarios on real servers
	@tests/run.sh

faults: programs ## Every fault scenario on real servers, and how long recovery took (BACKEND=native|compose CHAOS_MINUTES=30)
	@rm -f $(TARGET)/recovery-times
	@status=0; $(MAKE) --no-print-directory faults-$(BACKEND) RECOVERY_TIMES=$(abspath $(TARGET))/recovery-times || status=$$?; \
	 tests/recovery-times.sh $(TARGET)/recovery-times; exit $$status

faults-native:
	cargo build --locked --workspace --features processor/fail-points --bin processor-with-fail-points
	cargo test --locked -p tests --test native_faults --test native_formats --test native_secure -- --include-ignored

faults-compose:
	STACK_REQUIRE_COMPOSE=1 cargo test --locked -p tests --test compose_faults -- --include-ignored

chaos: programs ## Faults at random, the sums exact in the end (SECONDS=600 SEED=… BACKEND=native|compose SOURCE=topic|table)
	CHAOS_SECONDS=$(or $(SECONDS),600) CHAOS_SEED=$(SEED) CHAOS_SOURCE=$(SOURCE) STACK_REQUIRE_COMPOSE=1 \
	  cargo test --locked -p tests --test $(BACKEND)_chaos -- --nocapture

secure-compose: programs ## The whole job on the secured compose stack, every form of input to every form of output; needs a container engine
	deploy/images/build.sh
	for input in json json-schema avro; do for output in json avro; do INPUT=$$input OUTPUT=$$output tests/compose-secure.sh || exit 1; done; done

fuzz: toolchain ## Decoders against bytes that reach new code, which are kept (SECONDS=600 for each, TARGETS=…; cargo install --locked cargo-fuzz)
	@tests/fuzz.sh $(or $(SECONDS),600) $(TARGETS)

check: toolchain ## Formatting, lints, and licences where cargo-deny is installed
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy --workspace --all-targets --features processor/fail-points --locked -- -D warnings
	@if command -v cargo-deny >/dev/null; then cargo deny --all-features check bans licenses sources; \
	 else echo "cargo-deny is not installed, licences are not checked (cargo install --locked cargo-deny)"; fi

audit: ## Known vulnerabilities of dependencies, from the network (cargo install --locked cargo-deny)
	cargo deny --all-features check advisories

sbom: ## Dependencies of each crate as CycloneDX: processor/processor.cdx.json, sink/sink.cdx.json … (cargo install --locked cargo-cyclonedx)
	cargo cyclonedx --format json --all-features --target x86_64-unknown-linux-gnu

bench: release ## Measures beside Kafka Streams and a raw copy, prints ratios and targets (BENCH=--only=…; bench --help)
	@$(TARGET)/release/bench $(BENCH)

bench-quick: release ## The most telling figures of it, in a few minutes
	@$(TARGET)/release/bench --quick $(BENCH)

release: toolchain
	cargo build --locked --release -p bench -p processor -p sink --bins

cargo:
	@command -v cargo >/dev/null || { echo "cargo is missing. To do: install Rust 1.88 or newer, https://rustup.rs" >&2; exit 1; }

toolchain: cargo
	@deploy/install-build-deps.sh

programs: toolchain
	cargo build --locked -p tests -p processor -p sink --bins

# Only where there is none: whatever is up was started by the one that is there.
$(STACK_PROGRAMS)/demo:
	@$(MAKE) --no-print-directory programs
