# Two commands are enough: `make book` builds the book, `make test` runs every test. Both first make .venv if it is not there.

# The chapters' and the tests' models are tiny. A second thread gains nothing on them, and beside other work it can take
# twenty times as long, because each thread waits for the other.
export OMP_NUM_THREADS := 1

PYTHON ?= python3
BIN := .venv/bin
CODE := $(wildcard mixer/*.py mixer/cli/*.py mixer/weights/* mixer/widgets/*.*) requirements.txt
PAGES := _config.yml _toc.yml $(wildcard _extensions/*.py book/*.ipynb book/*.md book/*.bib book/_static/*)

# A C compiler that pip installs, 410 MB: for the engine and its tests alone.
ZIG := ziglang==0.17.1

.PHONY: book engine compiler test test-fast environment test-colab test-latest fuzz browser chromium firefox lint linkcheck dist pdf benchmark notebooks weights records lock repository clean

book: _build/.built
	@echo "The book is built. Open it in a browser:"
	@echo "file://$(CURDIR)/_build/html/index.html"

# Files of tests are spread over all cores; the chapters are executed, and what they print is compared.
PARALLEL := --numprocesses=auto --dist=loadfile --no-loadscope-reorder
NBVAL := --nbval --nbval-current-env --nbval-sanitize-with=tests/nbval.cfg

# PRECISION=fp32 or bf16 runs them as on a CPU without or with native bfloat16: tests/cpu/sitecustomize.py.
# TESTS=tests/browser or another file or folder runs these alone.
test: .venv/.installed browser compiler
	$(if $(PRECISION),MIXER_TEST_PRECISION=$(PRECISION) PYTHONPATH="$(CURDIR)/tests/cpu") \
		$(BIN)/python -m pytest -q $(PARALLEL) $(NBVAL) $(or $(TESTS),book tests)

test-fast: .venv/.installed  # the package alone, in a minute
	$(BIN)/python -m pytest -q $(PARALLEL) -m "not slow" tests/unit

environment: .venv/.installed  # not the code but what it was installed with: the locked versions, and all fit each other
	$(BIN)/python -m pytest -q tests/environment.py

# Every chapter as Colab would run it, from a bare runtime; then once more with the numpy of older runtimes.
test-colab: .venv/.installed
	$(BIN)/python tests/colab.py
	$(BIN)/python tests/colab.py --numpy 1.26.4

# The chapters with the newest versions that pyproject.toml allows, in an environment of their own.
test-latest:
	rm -rf _build/latest
	$(PYTHON) -m venv _build/latest
	_build/latest/bin/python -m pip install --quiet --editable . timm ipykernel nbval pytest pytest-timeout pytest-xdist
	_build/latest/bin/python -m pytest -q $(PARALLEL) $(NBVAL) book

fuzz: .venv/.installed chromium  # bad input, drawn by chance, for a quarter of an hour
	$(BIN)/python -m pytest -q --timeout=0 --hypothesis-profile=long tests/unit/test_fuzz.py tests/unit/test_fuzz_runs.py \
		tests/browser/test_fuzz_figures.py tests/browser/test_lab_damage.py

compiler: _build/compiler/ziglang
_build/compiler/ziglang: .venv/.installed
	rm -rf _build/compiler
	$(BIN)/python -m pip install --quiet --target _build/compiler $(ZIG)

# Plain SIMD, and no contracted sums: these would differ from one CPU to the next.
WASM := -target wasm32-freestanding -mcpu=generic+simd128+bulk_memory -Os -ffp-contract=off -nostdlib -Wall -Wextra \
	-Wl,--no-entry -Wl,--strip-all
OUT ?= mixer/widgets/engine.wasm
engine: compiler  # compile the engine of the live figures anew
	PYTHONPATH=_build/compiler $(BIN)/python -m ziglang cc $(WASM) -o $(OUT) mixer/widgets/engine/engine.c

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo  # which rooms of the package know which: pyproject.toml
	$(BIN)/oxlint mixer/widgets book/_static
	$(BIN)/oxfmt --check mixer/widgets book/_static/*.js

linkcheck: _build/.code  # every address in the book, over the network; the report stays apart from the pages
	$(BIN)/jupyter-book build . --builder linkcheck; found=$$?; mv _build/html/output.* _build; exit $$found

dist: book  # two archives in _build: the built book, and its notebooks
	$(BIN)/python -c "import shutil; shutil.make_archive('_build/mlp-mixer-book-html', 'zip', '_build/html')"
	$(BIN)/python -c "import shutil; shutil.make_archive('_build/mlp-mixer-book-notebooks', 'zip', '.', 'book')"

pdf: _build/.code chromium $(PAGES)  # the whole book in one file, in _build
	$(BIN)/jupyter-book build . -n -W --keep-going --builder singlehtml
	cp _build/singlehtml/book/intro.html _build/singlehtml/book.html  # where its links lead from
	$(BIN)/python -m _extensions.pdf _build/singlehtml/book.html _build/mlp-mixer-book.pdf

benchmark: .venv/.installed chromium  # training beside timm and mlp-mixer-pytorch on all cores; the figures in the page: running, redrawn, in training
	env -u OMP_NUM_THREADS $(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/flow.py
	$(BIN)/python benchmarks/redraw.py
	$(BIN)/python benchmarks/lab.py

notebooks: .venv/.installed  # execute every chapter in place, before it is committed
	$(BIN)/ruff format book
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False \
		--ExecutePreprocessor.store_widget_state=False book/*.ipynb
	$(BIN)/jupyter nbconvert --to notebook --inplace --coalesce-streams book/*.ipynb  # only what is there already

DATA ?= data
weights: .venv/.installed  # train the shipped weights anew: hours; goes on where it was stopped. DATA is the data's folder
	$(BIN)/python -m mixer.cli.release --data_dir $(DATA)

records: .venv/.installed  # the stored runs of chapters 6, 8, 12 and 13 and of the page of records: hours if all are missing; go on where they were stopped
	$(BIN)/python benchmarks/shuffles.py $(DATA)/cifar10-jpeg
	$(BIN)/python benchmarks/full.py $(DATA)/cifar10-jpeg
	$(BIN)/python benchmarks/ingredients.py $(DATA)/cifar10-jpeg
	$(BIN)/python benchmarks/regularisers.py $(DATA)/cifar10-jpeg
	$(BIN)/python benchmarks/mixings.py $(DATA)/cifar10-jpeg
	$(BIN)/python benchmarks/amounts.py $(DATA)
	$(BIN)/python benchmarks/ladder.py $(DATA)
	$(BIN)/python benchmarks/tried.py $(DATA)/cifar10-jpeg
	$(BIN)/python benchmarks/larger.py $(DATA)/cifar10-jpeg
	$(BIN)/python benchmarks/decay.py $(DATA)
	$(BIN)/python benchmarks/views.py $(DATA)  # from the runs of make weights

# The tests need two browsers: a Chromium, the system's or else Playwright's own, and a Firefox, which apt has on Debian.
APT = $(if $(shell id -u | grep -x 0),,sudo -n) apt-get -qq
browser: chromium firefox
chromium: .venv/.installed
	@$(BIN)/python -m _extensions.chromium || ($(APT) update && $(APT) install -y chromium && $(BIN)/python -m _extensions.chromium) \
		|| $(BIN)/playwright install --with-deps chromium
firefox: .venv/.installed
	@$(BIN)/python -m _extensions.firefox || ($(APT) update && $(APT) install -y firefox-esr) || $(BIN)/python -m _extensions.firefox

# constraints.txt names every package, in the newest version that fits requirements.txt on every Python and every system.
# It leaves out what torch brings for a GPU: that differs from build to build, and torch names the versions itself.
lock:
	$(PYTHON) -m venv _build/lock
	_build/lock/bin/python -m pip install --quiet uv
	_build/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest --no-annotate --no-header \
		requirements.txt > constraints.new
	sed -i.old '/^#/!d' constraints.txt
	sed '/^nvidia-/d; /^cuda-/d; /^triton/d' constraints.new >> constraints.txt
	rm constraints.new constraints.txt.old

# The address of the repository stands in _config.yml; what repeats it follows.
OLD_URL := $(shell sed -n 's/^  url: //p' _config.yml)
colab = $(1:https://github.com/%=https://colab.research.google.com/github/%)
repository:  # make repository URL=https://github.com/you/your-fork
	$(if $(filter https://%,$(URL)),,$(error name the new address: make repository URL=https://github.com/you/your-fork))
	sed -i.old 's|$(OLD_URL)|$(URL:/=)|g; s|$(call colab,$(OLD_URL))|$(call colab,$(URL:/=))|g' \
		_config.yml README.md CITATION.cff pyproject.toml book/*.ipynb
	rm -f *.old book/*.old

clean:
	rm -rf _build

.venv/.installed: requirements.txt constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 15) else "$(PYTHON) is Python %d.%d, but \
	the pinned packages need 3.11 to 3.14: name one of these, as in make book PYTHON=python3.14" % sys.version_info[:2])'
	@echo "Making the environment in .venv: this takes a few minutes, once."
	@test "$$($(BIN)/python -V 2>&1)" = "$$($(PYTHON) -V 2>&1)" || rm -rf .venv  # one of another Python is made anew
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements.txt --constraint constraints.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

# The cache of executed chapters knows their cells alone. What they import can change too, and then all run again.
_build/.code: .venv/.installed $(CODE)
	@rm -rf _build/.jupyter_cache _build/.doctrees
	@mkdir -p _build && touch $@

# Pages are written anew each time, so that no picture of an earlier build stays among them; what was executed is kept.
_build/.built: _build/.code $(PAGES)
	@rm -rf _build/html
	$(BIN)/jupyter-book build . -n -W --keep-going
	@touch $@
