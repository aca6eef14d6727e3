PROFILE ?= synthetic
ARGS ?=
SITE ?= build/site
UV := $(shell command -v uv || echo .uv/bin/uv)
RUN := .venv/bin/python -m
# fixes the processor's instructions, which the last digits depend on, before the first import
FIXED := $(RUN) ruranet_utils.storage.machine
NOTEBOOKS := $(patsubst notebooks/text/%.py,notebooks/%.ipynb,$(wildcard notebooks/text/*.py))

.PHONY: help reproduce models test test-browser site bench verify chaos audit lab notebooks readme lock clean
help:
	@echo "make reproduce [PROFILE=synthetic|open|paper] [ARGS='--only 04 -p seed 1']   every table and figure"
	@echo "make models      retrain the network in models/ from IDRiD and SRahim in data/raw"
	@echo "make test        lint, import contracts, notebook outputs, unit tests"
	@echo "make test-browser   the notebooks in JupyterLab and the site, in Chromium"
	@echo "make site        README, notebooks and docs as a website, in build/site"
	@echo "make bench       time and memory, in benchmarks/results"
	@echo "make verify      three cold runs: which bytes differ elsewhere, and on another processor"
	@echo "make chaos       faults, leaks and lost workers; then kill a run 20 times and resume it"
	@echo "make audit       known vulnerabilities in the locked dependencies (needs pypi.org)"
	@echo "make lab         JupyterLab on the notebooks"
	@echo "make notebooks   generate notebooks/*.ipynb from notebooks/text/*.py and run them"
	@echo "make readme      update the results in README.md from figures/"
	@echo "make lock        update uv.lock and environment.yml from pyproject.toml"
	@echo "make clean       remove the environment, the site and the store"

reproduce: .venv/stamp
	$(RUN) ruranet_utils.running.reproduce --profile $(PROFILE) $(ARGS)

models: .venv/stamp
	$(RUN) ruranet_utils.running.ship

# Notebooks run first: they fill the store that the whole-run and browser tests read.
test: .venv/stamp
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	.venv/bin/lint-imports
	$(RUN) pytest -q -n 2 --dist loadfile --no-loadscope-reorder --nbval notebooks tests --ignore=notebooks/open --ignore=tests/browser

test-browser: .venv/stamp
	$(RUN) pytest -q tests/browser

site: .venv/stamp
	rm -rf $(SITE)
	$(RUN) sphinx --quiet --fail-on-warning -c site -d build/doctrees . $(SITE)

bench: .venv/stamp
	.venv/bin/python benchmarks/bench_merge.py
	.venv/bin/python benchmarks/bench_check.py
	.venv/bin/python benchmarks/bench_decoding.py
	.venv/bin/python benchmarks/bench_training.py
	.venv/bin/python benchmarks/bench_clustering.py
	.venv/bin/python benchmarks/bench_scaling.py

verify: .venv/stamp
	$(RUN) reliability.verify $(ARGS)

chaos: .venv/stamp
	$(RUN) pytest -q reliability
	$(RUN) reliability.chaos $(ARGS)

audit: .venv/stamp
	$(UV) export --quiet --frozen --all-groups --all-extras --no-emit-project --output-file .venv/requirements.txt
	$(UV) tool run pip-audit==2.10.1 --disable-pip --require-hashes --strict -r .venv/requirements.txt

lab: .venv/stamp
	$(FIXED) .venv/bin/jupyter lab notebooks

notebooks: .venv/stamp $(NOTEBOOKS)
	TQDM_DISABLE=1 $(FIXED) .venv/bin/jupyter nbconvert --to notebook --execute --inplace \
	    --ExecutePreprocessor.record_timing=False \
	    --ExecutePreprocessor.store_widget_state=False --ExecutePreprocessor.timeout=1800 notebooks/*.ipynb

notebooks/%.ipynb: notebooks/text/%.py
	.venv/bin/jupytext --quiet --update --to ipynb --output $@ $<

readme: .venv/stamp
	$(RUN) ruranet_utils.reporting.results

lock: $(UV)
	$(UV) lock
	{ printf '# Written by `make lock`: the versions of uv.lock for conda users.\nname: ruranet\nchannels:\n  - conda-forge\n'; \
	  printf 'dependencies:\n  - python=3.11\n  - pip\n  - pip:\n'; \
	  $(UV) export --quiet --all-groups --all-extras --no-hashes --no-annotate --no-header --no-emit-project \
	  | sed 's/.*/      - "&"/'; } > environment.yml

clean:
	rm -rf .venv .uv build data/store

.venv/stamp: uv.lock pyproject.toml | $(UV)
	$(UV) sync --frozen --all-groups --all-extras --python 3.11 --compile-bytecode
	@touch $@

.uv/bin/uv:
	python3 -m venv .uv
	.uv/bin/pip install --quiet uv==0.13.9
