# `make demo` and `make test` are all that a fresh machine needs: Rust, a C compiler, make, Python 3.10+ with venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CARGO ?= cargo
# Builds are of the whole workspace: one package alone selects other features, and its dependencies are compiled again.
LAKE := target/debug/lake
# Names that each foreign server is raced for, by fifty writers (`make interop`).
KEYS ?= 40
# The comparison: scale factor, rounds of the overview, rounds of what must be shown; ARGS for its other options.
SF ?= 1
RUNS ?= 5
PAIRS ?= 11
BENCH := .venv-bench
# How long `make soak` runs, in seconds.
SECONDS ?= 600

.PHONY: demo test test-rust test-planted test-python soak module interop spark-fixtures lint fmt build bench million compaction clean

build:
	$(CARGO) build --workspace --lib --bins

## The main job on real data: both formats, twelve monthly merges, compact, query, time travel, check.
demo: build
	$(LAKE) demo

test: test-rust test-planted test-python

test-rust: build
	$(CARGO) test --workspace

## The test of the tests: bugs that are switched on one at a time must be caught (tests/tests/planted).
test-planted:
	$(CARGO) test --package lakehouse-tests --features planted --test all planted::

## Long runs of what `make test` does a little of, a sixth of the time for each: many actors by seed, random orders of
## requests, kill -9, programs against the model, two faults, damaged input. A failure prints its seed.
## make soak SECONDS=600
soak: build
	for family in soak:: interleave:: crash:: model::every_format faults::double fuzz::; do \
		LAKEHOUSE_SOAK_SECONDS=$$(($(SECONDS) / 6)) LAKEHOUSE_FUZZ_SECONDS=$$(($(SECONDS) / 12)) \
			$(CARGO) test --package lakehouse-tests --test all -- \
			--nocapture --test-threads=6 --skip same_seed --skip explorer --skip history $$family || exit 1; \
	done

$(VENV)/.ready: tests/requirements.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	touch $@

## The Python module is the workspace's own build, put beside its typed stubs.
module: build
	cp target/debug/lib_lakehouse.so lakehouse-py/python/lakehouse/_lakehouse.abi3.so 2>/dev/null \
		|| cp target/debug/lib_lakehouse.dylib lakehouse-py/python/lakehouse/_lakehouse.abi3.so

test-python: module $(VENV)/.ready
	PYTHONPATH=lakehouse-py/python $(BIN)/python -m pytest -q tests lakehouse-py

$(VENV)/.spark: tests/spark/requirements.txt $(VENV)/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check -r tests/spark/requirements.txt
	touch $@

## Servers that others wrote, and what they are worth; needs Go and Node. Then Spark, in turn with `lake`; needs Java 17
## and Maven. What is lacking is named and left out, with CI=1 it is a failure.
interop: module $(VENV)/.spark
	$(BIN)/python tests/servers/install.py
	$(BIN)/python tests/spark/install.py
	$(BIN)/python tests/servers/conditional.py --keys $(KEYS)
	PYTHONPATH=lakehouse-py/python $(BIN)/python -m pytest -q tests/servers
	PYTHONPATH=lakehouse-py/python $(BIN)/python -m pytest -q tests/spark

## The tables of fixtures/spark, written anew.
spark-fixtures: $(VENV)/.spark
	$(BIN)/python tests/spark/install.py
	$(BIN)/python -m tests.spark.fixtures

## Clippy looks on while the workspace is built, instead of `cargo clippy`, which would first check all dependencies: a
## third of a first build once more, of which the tests have no use. Its arguments come in its own notation.
lint: $(VENV)/.ready
	$(CARGO) fmt --all --check
	RUSTC_WORKSPACE_WRAPPER="$$(rustc --print sysroot)/bin/clippy-driver" CLIPPY_ARGS=-Dwarnings__CLIPPY_HACKERY__ \
		$(CARGO) build --workspace --all-targets
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

fmt: $(VENV)/.ready
	$(CARGO) fmt --all
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

$(BENCH)/.ready: benches/requirements.txt tests/requirements.txt
	test -x $(BENCH)/bin/python || $(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/pip install --quiet --disable-pip-version-check -r benches/requirements.txt
	touch $@

## The comparison against peers and floors (benches/README.md): make bench SF=1 RUNS=5 PAIRS=11 ARGS="--only random".
bench: $(BENCH)/.ready
	$(CARGO) build --release --workspace --lib --bins
	mkdir -p target/release/python
	cp -r lakehouse-py/python/lakehouse target/release/python/
	cp target/release/lib_lakehouse.so target/release/python/lakehouse/_lakehouse.abi3.so
	$(BENCH)/bin/python -m benches.compare --sf $(SF) --runs $(RUNS) --pairs $(PAIRS) $(ARGS)

## A table of a million files, opened and planned, beside PyIceberg and deltalake (benches/README.md): a few minutes, 2 GB.
million: $(BENCH)/.ready
	$(CARGO) build --release --workspace --lib --bins
	$(BENCH)/bin/python -m benches.million $(ARGS)

## Compaction beside peers and floors, and streams of commits (benches/README.md): some twenty minutes, 15 GB of disk.
compaction: $(BENCH)/.ready
	$(CARGO) build --release --workspace --lib --bins
	$(BENCH)/bin/python -m benches.compaction --sf $(SF) $(ARGS)

clean:
	rm -rf target $(VENV) $(BENCH)
