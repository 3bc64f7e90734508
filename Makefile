# make setup | run | test | test-rdma | verify | sanitize | sanitize-rdma | lint | wheel | clean. Needs Python >= 3.11 with venv, gcc and the Python headers.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# Headers that are installed later make the build include verbs.
STAMP  := $(VENV)/.scad-setup$(if $(wildcard /usr/include/infiniband/verbs.h),-verbs)

.PHONY: setup run test test-rdma verify sanitize sanitize-rdma lint wheel clean

setup: $(STAMP)

# Rebuilt whenever the build description or a native source changes; Python sources are used in place.
NATIVE := pyproject.toml setup.py $(wildcard libd/*.pyx libd/*.pxd libd/*.pxi libd/csrc/*.c libd/csrc/*.h operators/*.pyx operators/*.pxi operators/csrc/*.c operators/csrc/*.h operators/duckdb/*.pyx operators/duckdb/csrc/*.c operators/duckdb/csrc/*.h openwhisk/*.pyx openwhisk/csrc/*.h)
$(STAMP): $(NATIVE)
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "scad needs Python 3.11 or later; try: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

run: setup
	$(BIN)/python -m tpcds.run --sf 1

test: setup lint
	$(BIN)/python -m pytest -m 'not slow'

# tests/rdma on this machine's RDMA device, or else in an emulated guest (docs/rdma-testing.md). RDMA_TESTS narrows what runs.
RDMA_TESTS ?= tests/rdma
test-rdma: setup
	$(BIN)/python -m tests.rdma.guest.suite $(RDMA_TESTS)

# Everything: the long tests (the soak among them: SCAD_SOAK_SECONDS), all of tests/rdma and two guests, and the native core under
# the sanitizers.
# At scale factor 10 it runs all queries in every configuration: an hour of two and a half, with 10 GB of memory and 4 GB of disk.
# libd by itself: its tests fork, which the kernel refuses a process with the address space of all other tests.
verify: setup lint
	$(BIN)/python -m pytest tests/libd
	$(BIN)/python -m pytest --ignore tests/libd -m 'not sf10'
	$(MAKE) sanitize
	$(MAKE) sanitize-rdma
	$(BIN)/python -m pytest tests/tpcds -m sf10

# The native core under AddressSanitizer and UndefinedBehaviorSanitizer, built in a copy: the modules here stay as they are.
# CPython itself leaks by design, so leaks are not looked for (but the guided fuzzer, without Python, has LeakSanitizer).
# SANITIZE_TESTS narrows what runs. sanitize-rdma: the same over real verbs, in the guest (seven minutes; without the guest's Debian
# packages it says which are missing, and is left out).
SANITIZE_TESTS ?= tests/libd
SANITIZE_RDMA_TESTS ?= tests/rdma --ignore tests/rdma/test_queries.py
SANITIZE_FLAGS := address,undefined
SANITIZED := copy=$$(mktemp -d) && trap 'rm -rf "$$copy"' EXIT && \
	cp -r setup.py pyproject.toml README.md LICENSE libd examples "$$copy" && mkdir "$$copy/tests" && \
	cp -r tests/__init__.py tests/conftest.py tests/waiting.py tests/libd tests/rdma "$$copy/tests" && \
	find "$$copy" -name '*.so' -delete && \
	python=$$(realpath -s $(BIN)/python) && cd "$$copy" && export SCAD_SANITIZE=$(SANITIZE_FLAGS) PYTHONPATH="$$copy" && \
	SCAD_EXT=libd "$$python" setup.py --quiet build_ext --inplace
SANITIZERS := LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1

sanitize: setup
	$(SANITIZED) && $(SANITIZERS) "$$python" -m pytest --capture=sys -p no:cacheprovider -m 'not slow' $(SANITIZE_TESTS)

sanitize-rdma: setup
	$(SANITIZED) && { "$$python" -m tests.rdma.guest --memory 3072 --timeout 5400 -- env $(SANITIZERS) \
	"$$python" -m pytest --capture=sys --timeout 900 -m 'not slow' $(SANITIZE_RDMA_TESTS); status=$$?; \
	test $$status = 77 -a -z "$$SCAD_CI" || exit $$status; }

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

wheel: setup
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:
	rm -rf build dist $(VENV) *.egg-info
	find . -name '*.so' -path './*/*' -not -path './.venv/*' -delete
