# make reproduce    runs the course on CORPUS, two notebooks at a time, and prints the ladder
# make test         runs every check
# Each sets itself up first, the course with less than the tests: Python 3.11 to 3.13, make and a package registry are all it needs.
CORPUS ?= sample
# GPU=1 adds NVIDIA's libraries for TensorFlow; once they are there, they stay
GPU ?= $(if $(wildcard .venv/.gpu),1)
# another encoder than the packaged MiniLM: a folder or a hub id
MODEL ?=
PYTHON ?= $(firstword $(foreach v,3.11 3.12 3.13,$(shell python$(v) -c 'print("python$(v)")' 2>/dev/null)) python3)
BIN := .venv/bin
export MODEL

.PHONY: reproduce test check setup lab docs readme notebooks screenshot record bench lock clean

reproduce: setup
	@$(BIN)/python scripts/reproduce.py "$(CORPUS)"

# The notebooks hold checks of their own, so running them is the first half of the tests.
test: .venv/.browser
	@$(BIN)/python scripts/reproduce.py sample --all
	@$(BIN)/ruff check nbs tests scripts benchmarks setup.py
	@$(BIN)/ruff check --select F bert_genres
	@$(BIN)/pytest --ignore tests/test_scaling.py
	@$(BIN)/pytest -n 0 tests/test_scaling.py       # alone: Ray gives up where a node takes more than 30 s to start

# Before a commit: ruff, and the quick tests of what has changed.
check: .venv/.test
	@$(BIN)/python scripts/check.py

setup: .venv/.ready $(if $(GPU),.venv/.gpu)

# Installs what the lock names, every file checked against its hash; a second call finds it done. Compiling takes most of a minute
# once; without it, where Python may write no bytecode, each start of TensorFlow takes twice as long.
.venv/.ready: requirements.lock requirements-uv.txt build-constraints.txt settings.ini setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit("bert-genres needs Python 3.11 to 3.13, this is %d.%d: make PYTHON=python3.11" % v)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-uv.txt
	VIRTUAL_ENV=.venv $(BIN)/uv pip sync -q --compile-bytecode --require-hashes --build-constraint build-constraints.txt requirements.lock requirements-uv.txt
	VIRTUAL_ENV=.venv $(BIN)/uv pip install -q --no-deps --no-build-isolation -e .
	@touch $@

# What the course does without: tests, the site, Ray, a database, Arrow.
.venv/.test: .venv/.ready requirements-test.lock
	VIRTUAL_ENV=.venv $(BIN)/uv pip install -q --compile-bytecode --require-hashes --no-deps -r requirements-test.lock
	@touch $@

.venv/.gpu: .venv/.ready requirements-gpu.lock
	@test "$$(uname -sm)" = "Linux x86_64" || { echo "GPU=1 needs Linux on x86_64" >&2; exit 2; }
	VIRTUAL_ENV=.venv $(BIN)/uv pip install -q --compile-bytecode --require-hashes --no-deps -r requirements-gpu.lock
	@touch $@

# Chromium for the page's tests: the machine's, else Debian's for root, else Playwright's own.
.venv/.browser: .venv/.test
	@command -v chromium >/dev/null \
	  || { test "$$(id -u)" = 0 && apt-get update -q && apt-get install -yq --no-install-recommends chromium; } >/dev/null 2>&1 \
	  || $(BIN)/playwright install chromium
	@touch $@

lab: setup
	@cd nbs && ../$(BIN)/jupyter lab

docs: .venv/.test
	@$(BIN)/python scripts/docs.py

readme: setup
	@$(BIN)/python scripts/readme.py

# Runs the notebooks on the sample and stores their outputs in nbs/.
notebooks: .venv/.test
	@$(BIN)/python scripts/reproduce.py sample --store
	@$(BIN)/nbdev_clean
	@$(BIN)/python scripts/readme.py

# The page's picture, in a browser that `make test` has set up.
screenshot: .venv/.browser
	@$(BIN)/python scripts/screenshot.py reports/sample/frozen

# Scores every baseline and recipe on the test rows of CORPUS, and what was tried on its validation rows, into results/.
record: .venv/.test
	@$(BIN)/python benchmarks/baselines.py "$(CORPUS)"
	@for recipe in $$($(BIN)/python -c 'from bert_genres.files import register_names; print(*register_names("recipe"))'); do \
	  $(BIN)/bert-genres train "$(CORPUS)" --recipe $$recipe --record --force --out reports/recorded/$$recipe || exit; done
	@$(BIN)/python benchmarks/corpus.py "$(CORPUS)"
	@$(BIN)/python benchmarks/ablation.py "$(CORPUS)"
	@$(BIN)/python benchmarks/corrections.py "$(CORPUS)"
	@$(BIN)/python benchmarks/changes.py "$(CORPUS)"
	@$(BIN)/python benchmarks/paired.py "$(CORPUS)" reports/recorded/frozen reports/recorded/article-longer
	@$(BIN)/python benchmarks/paired.py "$(CORPUS)" reports/recorded/finetuned reports/recorded/frozen
	@$(BIN)/python benchmarks/explanation.py "$(CORPUS)" reports/recorded/frozen reports/recorded/article
	@for grid in gamma=0,1,2,4 max_seq_len=128,512 batch_size=64,256 epochs=50,200,400 dropout=0.2,0.5; do \
	  $(BIN)/bert-genres experiment "$(CORPUS)" --runs reports/runs --jobs 2 --record --grid seed=0,1,2 --grid $$grid || exit; done

bench: .venv/.test
	@$(BIN)/python benchmarks/rest.py "$(CORPUS)"
	@$(BIN)/python benchmarks/cache.py "$(CORPUS)"
	@$(BIN)/python benchmarks/encoder.py "$(CORPUS)"
	@$(BIN)/python benchmarks/page.py reports/recorded/frozen
	@$(BIN)/python benchmarks/scaling.py "$(CORPUS)" reports/recorded/frozen

# Recompiles the locks: all that settings.ini and pyproject.toml ask for, of it what the course needs, and what TensorFlow wants
# beside a GPU.
COMPILE := $(BIN)/uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-header --no-annotate --python-version 3.11
lock: setup
	$(COMPILE) --upgrade --all-extras --group test pyproject.toml -o requirements-test.lock
	cp requirements-test.lock requirements.lock       # whose versions the next line keeps
	$(COMPILE) --extra train --extra finetune --extra plots --group course pyproject.toml -o requirements.lock
	echo "tensorflow[and-cuda]" | $(BIN)/uv pip compile -q --constraint requirements.lock --generate-hashes --no-emit-index-url \
	  --no-header --no-annotate --python-version 3.11 --python-platform x86_64-manylinux_2_28 - \
	  | awk '/^[^ ]/ {keep = /^nvidia-/} keep' > requirements-gpu.lock

clean:
	rm -rf .venv reports _docs _proc build dist *.egg-info
