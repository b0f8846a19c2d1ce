# Two commands are enough: `make book` builds the book, `make test` runs every test. Both first make .venv if it is not there.

# The chapters' and the tests' models are tiny. A second thread gains nothing on them, and beside other work it can take
# twenty times as long, because each thread waits for the other.
export OMP_NUM_THREADS := 1

PYTHON ?= python3
BIN := .venv/bin
CODE := $(wildcard mixer/*.py mixer/weights/* mixer/widgets/*) requirements.txt
PAGES := _config.yml _toc.yml $(wildcard _extensions/*.py book/*.ipynb book/*.md book/*.bib book/_static/*)

.PHONY: book test test-colab browser lint linkcheck dist benchmark notebooks weights repository clean

book: _build/.built
	@echo "The book is built. Open it in a browser:"
	@echo "file://$(CURDIR)/_build/html/index.html"

test: .venv/.installed browser
	$(BIN)/python -m pytest -q

# Every chapter as Colab would run it, from a bare runtime; then once more with the numpy of older runtimes.
test-colab: .venv/.installed
	$(BIN)/python -m tests.colab
	$(BIN)/python -m tests.colab --numpy 1.26.4

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

linkcheck: .venv/.installed  # every address in the book, over the network
	$(BIN)/jupyter-book build . --builder linkcheck

dist: book  # two archives in _build: the built book, and its notebooks
	$(BIN)/python -c "import shutil; shutil.make_archive('_build/mlp-mixer-book-html', 'zip', '_build/html')"
	git archive --format=zip --output=_build/mlp-mixer-book-notebooks.zip HEAD book

benchmark: .venv/.installed browser  # training beside timm and mlp-mixer-pytorch on all cores; the Mixer in the page
	env --unset=OMP_NUM_THREADS $(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/flow.py

notebooks: .venv/.installed  # execute every chapter in place, before it is committed
	$(BIN)/ruff format book
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False \
		--coalesce-streams --ExecutePreprocessor.store_widget_state=False book/*.ipynb

DATA ?= data
weights: .venv/.installed  # train the shipped weights anew: hours; goes on where it was stopped. DATA is the data's folder
	$(BIN)/python -m mixer.release --data_dir $(DATA)
	$(BIN)/python benchmarks/shuffles.py $(DATA)/cifar10-jpeg

# The tests need a Chromium: the system's, or else Playwright's own.
browser: .venv/.installed
	@$(BIN)/python -m tests.browser || (apt-get update -qq && apt-get install -y -qq chromium) \
		|| (sudo -n apt-get update -qq && sudo -n apt-get install -y -qq chromium) || $(BIN)/playwright install --with-deps chromium

# The address of the repository stands in _config.yml; what repeats it follows.
OLD_URL := $(shell sed -n 's/^  url: //p' _config.yml)
repository:  # make repository URL=https://github.com/you/your-fork
	$(if $(filter https://%,$(URL)),,$(error name the new address: make repository URL=https://github.com/you/your-fork))
	sed -i.old 's|$(OLD_URL)|$(URL:/=)|g' _config.yml README.md CITATION.cff book/*.ipynb
	rm -f *.old book/*.old

clean:
	rm -rf _build

.venv/.installed: requirements.txt pyproject.toml
	@echo "Making the environment in .venv: this takes a few minutes, once."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $@

# The cache of executed chapters knows their cells alone. What they import can change too, and then all run again.
_build/.code: .venv/.installed $(CODE)
	@rm -rf _build/.jupyter_cache _build/.doctrees
	@mkdir -p _build && touch $@

_build/.built: _build/.code $(PAGES)
	$(BIN)/jupyter-book build . -n -W --keep-going
	@touch $@
