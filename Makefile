# Commands for developers and packagers. CI runs `make test`.
CARGO  ?= cargo
TARGET ?= $(or $(CARGO_TARGET_DIR),target)/release

# Where `make install` puts things. DESTDIR is put before all of them.
PREFIX ?= /usr/local
BINDIR ?= $(PREFIX)/bin
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
DATADIR ?= $(PREFIX)/share
MANDIR ?= $(DATADIR)/man
DOCDIR ?= $(DATADIR)/doc/sparkle
DESTDIR ?=

VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
SOVERSION := $(shell sed -n 's/^const SOVERSION: u32 = \(.*\);/\1/p' build.rs)
# The list of `rustc --print native-static-libs`.
NATIVE_LIBS := -lgcc_s -lutil -lrt -lpthread -lm -ldl -lc

# What the tests need beyond Rust: Debian packages, and the tools by which they are recognised.
PACKAGES := gcc g++ gfortran binutils libc6-dev libegl1 libgl1 libgl1-mesa-dri libegl-dev libgl-dev glslang-tools cmake pkg-config \
  python3-numpy python3-hatchling
TOOLS := gcc g++ gfortran nm glslangValidator cmake pkg-config

.PHONY: all test lint check msrv deps lib program pages write-pages fortran fortran-if-possible header wheel test-mpi install uninstall fuzz asan fuzz-targets fuzz-run miri exact-products generated-kernels bench-peers bench-gpu bench-stream clean

## Everything that `make install` copies: the libraries, the program, its pages; the Fortran modules if there is a compiler.
all: program pages fortran-if-possible

## The shared and the static library, release build. Beside libsparkle.so lies a link that has the name of its SONAME.
lib:
	$(CARGO) build --release --locked --lib

program:
	$(CARGO) build --release --locked

## Manual pages and shell completions.
pages: program
	$(MAKE) --no-print-directory write-pages

write-pages:
	mkdir -p "$(TARGET)/pages"
	"$(TARGET)/sparkle" man "$(TARGET)/pages/man" >/dev/null
	for shell in bash zsh fish; do "$(TARGET)/sparkle" completions $$shell > "$(TARGET)/pages/sparkle.$$shell" || exit 1; done

## The Fortran modules, in fortran/build/COMPILER: make fortran [FC=flang-22]
fortran:
	$(MAKE) -C fortran

fortran-if-possible:
	@if command -v "$$($(MAKE) -s -C fortran name)" >/dev/null; then $(MAKE) -C fortran; \
	else echo "skipped: the Fortran modules (no Fortran compiler; name one with FC=)"; fi

## All checks and all tests. As root on Debian or Ubuntu it installs what is missing.
test: deps lint check

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --all-features --locked -- -D warnings
	$(CARGO) clippy --package sparkle-compute --lib --locked -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --locked --lib

# All tests in one build, so with the features that some of them need. None changes what the library does by itself.
TESTED := --features sparkle-compute/rayon,sparkle-cli/patterns

# Where Mesa's software driver is installed, a test that finds no GL device fails instead of being skipped.
check:
	if [ -n "$$(find /usr/lib /usr/lib64 -name 'swrast_dri.so' -o -name 'libgallium*.so' 2>/dev/null | head -n 1)" ]; \
	then export SPARKLE_TEST_REQUIRE_GL=1; fi; \
	$(CARGO) test --locked --no-fail-fast $(TESTED) --lib --bins --tests
	$(CARGO) test --locked --no-fail-fast $(TESTED) --doc

# The oldest Rust that Cargo.toml promises.
MSRV := $(shell sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)

## Builds with the oldest Rust: rustup toolchain install 1.89 --profile minimal && make msrv
msrv:
	@if ! $(CARGO) +$(MSRV) --version >/dev/null 2>&1; then \
	  echo "skipped: msrv (rustup toolchain install $(MSRV) --profile minimal)"; exit 0; fi; \
	set -x; $(CARGO) +$(MSRV) check --locked --workspace --all-targets --all-features \
	  --target-dir $(or $(CARGO_TARGET_DIR),target)/msrv

deps:
	@missing=""; for tool in $(TOOLS); do command -v $$tool >/dev/null || missing="$$missing $$tool"; done; \
	for library in libEGL.so.1 libGL.so; do \
	  find /usr/lib /usr/lib64 -name $$library 2>/dev/null | grep -q . || missing="$$missing $$library"; done; \
	for python in python3 /usr/bin/python3 missing; do \
	  if [ $$python = missing ]; then missing="$$missing python3-numpy python3-hatchling"; \
	  elif $$python -c "import numpy, hatchling" 2>/dev/null; then break; fi; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $(PACKAGES); \
	else echo "missing:$$missing. As root: apt-get install $(PACKAGES)" >&2; exit 1; fi

# Debian's packages of both implementations of MPI; their compilers and launchers have the suffixes .openmpi and .mpich there.
MPI_PACKAGES := libopenmpi-dev openmpi-bin libmpich-dev mpich
MPI ?= openmpi mpich

## Groups of ranks over MPI, with each implementation: make test-mpi [MPI="openmpi mpich"]. As root on Debian or Ubuntu it installs
## what is missing.
test-mpi: lib
	@missing=""; for mpi in $(MPI); do command -v mpicc.$$mpi mpifort.$$mpi mpirun.$$mpi >/dev/null || missing=1; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends gfortran $(MPI_PACKAGES); \
	else echo "missing: $(MPI). As root: apt-get install $(MPI_PACKAGES)" >&2; exit 1; fi
	TARGET="$(abspath $(TARGET))" sh tests/mpi/run.sh $(MPI)

# Sanitizers and fuzzing use unstable flags of the compiler, hence RUSTC_BOOTSTRAP. Their builds have folders of their own.
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
ASAN := RUSTC_BOOTSTRAP=1 RUSTFLAGS=-Zsanitizer=address ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1
ASAN_TEST := $(CARGO) test --locked --target $(HOST) --target-dir $(or $(CARGO_TARGET_DIR),target)/asan

## Random calls of the C interface under the address sanitizer: make fuzz [CALLS=n] [SEED=n] [DEVICE=cpu]
CALLS ?= 1000000
SEED ?= 1
fuzz:
	$(ASAN) SPARKLE_FUZZ_CALLS=$(CALLS) SPARKLE_FUZZ_SEED=$(SEED) $(if $(DEVICE),SPARKLE_FUZZ_DEVICE=$(DEVICE)) \
	  $(ASAN_TEST) --test fuzz -- --nocapture

## Tests of the C boundary, and one minute of random calls, under the address sanitizer.
asan:
	$(ASAN) $(ASAN_TEST) --lib -- ffi::
	$(ASAN) $(ASAN_TEST) --test abi_arguments --test fuzz

# The flags that cargo-fuzz sets.
FUZZ_FLAGS := -Zsanitizer=address -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
  -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing
FUZZ_DIR := $(or $(CARGO_TARGET_DIR),target)/fuzz
FUZZ_TARGETS := c_calls npy cache shaders kernel

## Builds the libFuzzer targets of fuzz/. Skipped, with a line that says so, where no C++ compiler can build libFuzzer.
fuzz-targets:
	@if ! command -v g++ >/dev/null && ! command -v clang++ >/dev/null; then \
	  echo "skipped: fuzz-targets (libFuzzer needs g++ or clang++)"; exit 0; fi; \
	if ! RUSTC_BOOTSTRAP=1 rustc -Zsanitizer=address --print cfg >/dev/null 2>&1; then \
	  echo "skipped: fuzz-targets (this rustc has no address sanitizer)"; exit 0; fi; \
	set -x; RUSTC_BOOTSTRAP=1 RUSTFLAGS="$(FUZZ_FLAGS)" $(CARGO) build --locked --release --manifest-path fuzz/Cargo.toml \
	  --target $(HOST) --target-dir $(FUZZ_DIR)

FUZZ_SECONDS ?= 60

## Runs the libFuzzer targets in turn: make fuzz-run [FUZZ_TARGETS="npy cache"] [FUZZ_SECONDS=n]. Inputs are kept in fuzz/corpus.
fuzz-run: fuzz-targets
	@if ! [ -d $(FUZZ_DIR)/$(HOST)/release ]; then echo "skipped: fuzz-run (no targets were built)"; exit 0; fi; \
	for target in $(FUZZ_TARGETS); do \
	  mkdir -p fuzz/corpus/$$target fuzz/artifacts/$$target; \
	  dict=fuzz/$$target.dict; echo "fuzz-run: $$target, $(FUZZ_SECONDS) s"; \
	  SPARKLE_CACHE_DIR=off SPARKLE_DEVICE=cpu ASAN_OPTIONS=detect_leaks=0 \
	  $(FUZZ_DIR)/$(HOST)/release/$$target -max_total_time=$(FUZZ_SECONDS) -detect_leaks=0 -print_final_stats=1 \
	    -artifact_prefix=fuzz/artifacts/$$target/ $$([ -f $$dict ] && echo -dict=$$dict) fuzz/corpus/$$target || exit 1; \
	done

# Miri has no fork and starts no processes. Loops over all tiles or all convolutions would take too long. Miri comes
# with a nightly toolchain.
MIRI ?= cargo +nightly miri
MIRI_TESTS ?= problem:: memory:: ffi::boundary ffi::pointer ffi::status ffi::handle \
  store::tests::without store::tests::the_next_process store::tests::valid_files \
  --skip gl:: --skip cpu:: --skip device:: --skip shader:: --skip fork --skip panics_inside \
  --skip convolutions_of_every_kind --skip memory::tile

## Unit tests under Miri. Skipped, with a line that says so, where Miri is not installed.
miri:
	@if ! $(MIRI) --version >/dev/null 2>&1; then \
	  echo "skipped: miri (rustup component add --toolchain nightly miri rust-src)"; exit 0; fi; \
	set -x; MIRIFLAGS="-Zmiri-disable-isolation -Zmiri-deterministic-floats" $(MIRI) test --locked --package sparkle-compute --lib -- $(MIRI_TESTS)

PRODUCTS ?= 2000
INPUTS ?= 100

## Products by every sgemm shader, exact on integers, INPUTS of each shape: make exact-products [PRODUCTS=n] [INPUTS=n] [SEED=n]
exact-products:
	SPARKLE_TEST_REQUIRE_GL=1 SPARKLE_CACHE_DIR=off SPARKLE_TEST_PRODUCTS=$(PRODUCTS) SPARKLE_TEST_INPUTS=$(INPUTS) \
	  SPARKLE_TEST_SEED=$(SEED) $(CARGO) test --locked --lib gl::tests::products -- --nocapture

KERNELS ?= 10000

## Generated kernels by gfortran, the CPU and the first OpenGL device, bit by bit: make generated-kernels [KERNELS=n] [SEED=n]
generated-kernels:
	SPARKLE_TEST_REQUIRE_FORTRAN=1 SPARKLE_CACHE_DIR=off SPARKLE_TEST_KERNELS=$(KERNELS) SPARKLE_TEST_SEED=$(SEED) \
	  $(CARGO) test --locked --test generated_kernels -- --nocapture

## Generates the headers and include/abi.txt from src/ffi.
header:
	SPARKLE_BLESS=1 $(CARGO) test --locked --test abi

PYTHON ?= python3

## A wheel for Python that carries the library, in target/release/wheels. PYTHON needs hatchling (Debian: python3-hatchling).
wheel: lib
	cd python && WHEEL_LIBRARY="$(abspath $(TARGET))/libsparkle.so" \
	  $(PYTHON) -m hatchling build -t wheel -d "$(abspath $(TARGET))/wheels"

# Only copies, so that root needs no cargo.
INSTALL = TARGET="$(TARGET)" FORTRAN="$(or $(FORTRAN),fortran/build)" COMPILER="$$($(MAKE) -s -C fortran compiler)" \
  PREFIX="$(PREFIX)" BINDIR="$(BINDIR)" LIBDIR="$(LIBDIR)" INCLUDEDIR="$(INCLUDEDIR)" DATADIR="$(DATADIR)" \
  MANDIR="$(MANDIR)" DOCDIR="$(DOCDIR)" DESTDIR="$(DESTDIR)" VERSION=$(VERSION) SOVERSION=$(SOVERSION) \
  MAJOR=$(word 1,$(subst ., ,$(VERSION))) MINOR=$(word 2,$(subst ., ,$(VERSION))) NATIVE_LIBS="$(NATIVE_LIBS)" \
  sh packaging/install.sh

## Copies what `make` built: make install [PREFIX=/usr/local] [LIBDIR=...] [DESTDIR=...]
install:
	@$(INSTALL) install

## Removes what `make install` copied, with the same PREFIX, DATADIR and DESTDIR.
uninstall:
	@$(INSTALL) uninstall

# Peers at fixed versions. Nothing is installed outside this folder.
PEERS := $(or $(CARGO_TARGET_DIR),target)/peers
# One thread, then all cores.
THREADS ?= 1 $(filter-out 1,$(shell nproc))
ROUNDS ?= 5
SECONDS ?= 0.2

## Compares Sparkle with oneDNN, ncnn and OpenBLAS, alternating, with one thread and with all cores: make bench-peers [THREADS="n ..."] [ROUNDS=n] [RECORD=1]
bench-peers: $(PEERS)/onednn_conv $(PEERS)/openblas_sgemm $(PEERS)/openblas/unpacked
	$(CARGO) build --release --locked --example bench_driver
	for threads in $(THREADS); do \
	  python3 benchmarks/peers/compare.py --peers $(PEERS) --sparkle $(TARGET)/examples/bench_driver \
	    --threads $$threads --rounds $(ROUNDS) --seconds $(SECONDS) $(if $(RECORD),--record benchmarks) || exit; done

TOP ?= 3

## Compares Sparkle's shaders with cuDNN and cuBLAS (PyTorch with CUDA in PYTHON), alternating: make bench-gpu [TOP=n] [ROUNDS=n] [RECORD=1] [ALONE=1]
bench-gpu:
	$(CARGO) build --release --locked --features lab --example gpu_driver
	$(PYTHON) benchmarks/peers/compare_gpu.py --sparkle $(TARGET)/examples/gpu_driver \
	  --top $(TOP) --rounds $(ROUNDS) $(if $(ALONE),--alone) $(if $(RECORD),--record benchmarks)
	$(MAKE) bench-stream

# DEVICE has no default of its own: `make fuzz` without it uses every device.
STREAM_DEVICE = $(or $(DEVICE),gl:0)
BATCH ?= 32
BATCHES ?= 20
STREAMED ?= r50_conv1 vgg_3_2 vgg_5
BOUND_BY_KERNELS ?= vgg_3_2 vgg_5
JOBS ?= 1000000
STREAM = $(TARGET)/sparkle stream --suite benchmarks/suite.csv --device $(STREAM_DEVICE) --batch $(BATCH)

## Measures pipelines beside the reference's way, layers bound by kernels, and small jobs: make bench-stream [DEVICE=gl:N] [BATCHES=n] [STREAMED=layers] [JOBS=n]
bench-stream:
	$(CARGO) build --release --locked --bin sparkle --example small_jobs
	for layer in $(STREAMED); do $(STREAM) --batches $(BATCHES) --layer $$layer || exit 1; done
	for layer in $(BOUND_BY_KERNELS); do \
	  SPARKLE_ALGORITHM=direct $(STREAM) --batches 100 --layer $$layer --way "in place, host" --slots 8 || exit 1; done
	$(TARGET)/examples/small_jobs throughput $(STREAM_DEVICE)
	$(TARGET)/examples/small_jobs random $(STREAM_DEVICE)
	$(TARGET)/examples/small_jobs soak $(STREAM_DEVICE) $(JOBS)

$(PEERS)/venv/installed:
	python3 -m venv $(PEERS)/venv
	$(PEERS)/venv/bin/pip install --quiet onednn-cpu-gomp==2023.2.0 onednn-devel-cpu-gomp==2023.2.0 \
	  ncnn==1.0.20261020 numpy
	touch $@

$(PEERS)/onednn_conv: benchmarks/peers/onednn_conv.cpp $(PEERS)/venv/installed
	g++ -O2 -std=c++17 -Wall -Wextra -I$(PEERS)/venv/include $< -o $@ -L$(PEERS)/venv/lib -ldnnl \
	  -Wl,-rpath,$(abspath $(PEERS)/venv/lib)

$(PEERS)/openblas_sgemm: benchmarks/peers/openblas_sgemm.c
	mkdir -p $(PEERS)
	gcc -O2 -std=c99 -Wall -Wextra $< -o $@ -ldl

# Debian's package is unpacked, not installed.
$(PEERS)/openblas/unpacked:
	mkdir -p $(PEERS)/openblas
	cd $(PEERS)/openblas && apt-get download libopenblas0-pthread && dpkg-deb -x libopenblas0-pthread_*.deb .
	touch $@

clean:
	$(CARGO) clean
	$(MAKE) -C fortran clean
