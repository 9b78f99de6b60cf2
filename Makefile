# make reproduce    runs the notebooks in order on CORPUS and prints the ladder
# make test         runs every check
# Each sets itself up first: Python 3.11 to 3.13, make and a package registry are all it needs.
CORPUS ?= sample
# another encoder than the packaged MiniLM: a folder or a hub id
MODEL ?=
PYTHON ?= $(firstword $(foreach v,3.11 3.12 3.13,$(shell python$(v) -c 'print("python$(v)")' 2>/dev/null)) python3)
BIN := .venv/bin
export MODEL

.PHONY: reproduce test setup lab docs readme notebooks record bench lock clean

reproduce: setup
	@$(BIN)/python scripts/reproduce.py "$(CORPUS)"

# The notebooks hold checks of their own, so running them is the first half of the tests.
test: setup
	@$(BIN)/python scripts/reproduce.py sample
	@$(BIN)/ruff check nbs tests scripts benchmarks setup.py
	@$(BIN)/pytest

setup: .venv/.ready

# Installs what the lock names, every file checked against its hash; a second call finds it done.
.venv/.ready: requirements.lock requirements-uv.txt build-constraints.txt settings.ini setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v <= (3, 13) or sys.exit("bert-genres needs Python 3.11 to 3.13, this is %d.%d: make PYTHON=python3.11" % v)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-uv.txt
	VIRTUAL_ENV=.venv $(BIN)/uv pip sync -q --require-hashes --build-constraint build-constraints.txt requirements.lock requirements-uv.txt
	VIRTUAL_ENV=.venv $(BIN)/uv pip install -q --no-deps --no-build-isolation -e .
	@touch $@

lab: setup
	@cd nbs && ../$(BIN)/jupyter lab

docs: setup
	@$(BIN)/python scripts/docs.py

readme: setup
	@$(BIN)/python scripts/readme.py

# Runs the notebooks on the sample and stores their outputs in nbs/.
notebooks: setup
	@$(BIN)/python scripts/reproduce.py sample --store
	@$(BIN)/nbdev_clean
	@$(BIN)/python scripts/readme.py

# Scores every baseline and recipe on the test rows of CORPUS, and what was tried on its validation rows, into results/.
record: setup
	@$(BIN)/python scripts/reproduce.py "$(CORPUS)" --record
	@for recipe in article frozen; do \
	  $(BIN)/bert-genres train "$(CORPUS)" --recipe $$recipe --record --force --out reports/recorded/$$recipe || exit; done
	@$(BIN)/python benchmarks/ablation.py "$(CORPUS)"
	@$(BIN)/python benchmarks/corrections.py "$(CORPUS)"
	@for grid in gamma=0,1,2,4 max_seq_len=128,512 batch_size=64,256; do \
	  $(BIN)/bert-genres experiment "$(CORPUS)" --runs reports/runs --jobs 2 --record --grid seed=0,1,2 --grid $$grid || exit; done

bench: setup
	@$(BIN)/python benchmarks/rest.py
	@$(BIN)/python benchmarks/cache.py
	@$(BIN)/python benchmarks/encoder.py

# Recompiles the lock from settings.ini and pyproject.toml.
lock: setup
	$(BIN)/uv pip compile -q --upgrade --universal --generate-hashes --no-emit-index-url --no-header --no-annotate \
	  --python-version 3.11 --all-extras --group dev pyproject.toml -o requirements.lock

clean:
	rm -rf .venv reports _docs _proc build dist *.egg-info
