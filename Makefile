# Everything here needs only Python (3.11 or newer) and make: each target sets itself up.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: demo robots test test-all lint bench clean

# The stamps are remade when what is installed could have changed.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

$(VENV)/.installed-bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[bench]'
	touch $@

$(VENV)/.installed-robots: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[robots]'
	touch $@

demo: $(VENV)/.installed
	@mkdir -p out
	$(BIN)/persianrug solve --p 0.045 --ratio 0.25 --measure
	$(BIN)/persianrug solve --data examples/data/pbmc68k_reduced.npz --ratio 0.5 --measure
	$(BIN)/persianrug weave --n-sparse 512 --ratio 0.25 --out out/rug.png
	$(BIN)/persianrug weave --n-sparse 765 --ratio 0.25 --out out/rug-765.png
	$(BIN)/persianrug compress examples/data/pbmc68k_reduced.npz --target-loss 0.02 --bits 8 --out out/cells.rug
	$(BIN)/persianrug verify out/cells.rug --data examples/data/pbmc68k_reduced.npz
	@echo "Pictures: out/rug.png out/rug-765.png"

# A robot's story, with a film if OpenGL is here: it says what installs that if not.
robots: $(VENV)/.installed-robots
	OMP_NUM_THREADS=1 $(BIN)/persianrug robot spot --out out/robot
	@echo "Page: out/robot/page.html"

# What a user relies on, in minutes. Tests of a file stay together, so that what they share is made once.
test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile -m "not slow and not server"

# And what takes long, or needs a database server.
test-all: test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile -m "slow or server"

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

bench: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.load
	$(BIN)/python -m benchmarks.sketching
	$(BIN)/python -m benchmarks.smooth
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.skin
	$(BIN)/python -m benchmarks.peers
	$(BIN)/python -m benchmarks.ddp

clean:
	rm -rf $(VENV) out dist
