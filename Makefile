# Two commands are enough: `make book` builds the book, `make test` runs every test. Both first make .venv if it is not there.

# The chapters' and the tests' models are tiny. A second thread gains nothing on them, and beside other work it can take
# twenty times as long, because each thread waits for the other.
export OMP_NUM_THREADS := 1

PYTHON ?= python3
BIN := .venv/bin
CODE := $(wildcard mixer/*.py mixer/weights/* mixer/widgets/*) requirements.txt
PAGES := _config.yml _toc.yml $(wildcard _extensions/*.py book/*.ipynb book/*.md book/*.bib book/_static/*)

.PHONY: book test test-colab test-latest fuzz browser lint linkcheck dist pdf benchmark notebooks weights lock repository clean

book: _build/.built
	@echo "The book is built. Open it in a browser:"
	@echo "file://$(CURDIR)/_build/html/index.html"

test: .venv/.installed browser
	$(BIN)/python -m pytest -q

# Every chapter as Colab would run it, from a bare runtime; then once more with the numpy of older runtimes.
test-colab: .venv/.installed
	$(BIN)/python -m tests.colab
	$(BIN)/python -m tests.colab --numpy 1.26.4

# The chapters with the newest versions that pyproject.toml allows, in an environment of their own.
test-latest:
	rm -rf _build/latest
	$(PYTHON) -m venv _build/latest
	_build/latest/bin/python -m pip install --quiet --editable . timm ipykernel nbval pytest pytest-timeout pytest-xdist
	_build/latest/bin/python -m pytest -q book

fuzz: .venv/.installed browser  # bad input, drawn by chance, for a quarter of an hour
	$(BIN)/python -m pytest -q --numprocesses=0 --timeout=0 --hypothesis-profile=long tests/test_fuzz.py

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/oxlint mixer/widgets
	$(BIN)/oxfmt --check mixer/widgets

linkcheck: .venv/.installed  # every address in the book, over the network; the report stays apart from the pages
	$(BIN)/jupyter-book build . --builder linkcheck; found=$$?; mv _build/html/output.* _build; exit $$found

dist: book  # two archives in _build: the built book, and its notebooks
	$(BIN)/python -c "import shutil; shutil.make_archive('_build/mlp-mixer-book-html', 'zip', '_build/html')"
	git archive --format=zip --output=_build/mlp-mixer-book-notebooks.zip HEAD book

pdf: .venv/.installed browser $(CODE) $(PAGES)  # the whole book in one file, in _build
	$(BIN)/jupyter-book build . -n -W --keep-going --builder singlehtml
	cp _build/singlehtml/book/intro.html _build/singlehtml/book.html  # where its links lead from
	$(BIN)/python -m _extensions.pdf _build/singlehtml/book.html _build/mlp-mixer-book.pdf

benchmark: .venv/.installed browser  # training beside timm and mlp-mixer-pytorch on all cores; the Mixer in the page
	env --unset=OMP_NUM_THREADS $(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/flow.py

notebooks: .venv/.installed  # execute every chapter in place, before it is committed
	$(BIN)/ruff format book
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False \
		--ExecutePreprocessor.store_widget_state=False book/*.ipynb
	$(BIN)/jupyter nbconvert --to notebook --inplace --coalesce-streams book/*.ipynb  # only what is there already

DATA ?= data
weights: .venv/.installed  # train the shipped weights anew: hours; goes on where it was stopped. DATA is the data's folder
	$(BIN)/python -m mixer.release --data_dir $(DATA)
	$(BIN)/python benchmarks/shuffles.py $(DATA)/cifar10-jpeg

# The tests need a Chromium: the system's, or else Playwright's own.
browser: .venv/.installed
	@$(BIN)/python -m tests.browser || (apt-get update -qq && apt-get install -y -qq chromium) \
		|| (sudo -n apt-get update -qq && sudo -n apt-get install -y -qq chromium) || $(BIN)/playwright install --with-deps chromium

# constraints.txt names every package of this environment, with its version: what was tested, on Python 3.11.
lock: .venv/.installed
	@sed -n '/^#/p' constraints.txt > constraints.new
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu$$//; s/$$/ ; python_version == "3.11"/' >> constraints.new
	mv constraints.new constraints.txt

# The address of the repository stands in _config.yml; what repeats it follows.
OLD_URL := $(shell sed -n 's/^  url: //p' _config.yml)
repository:  # make repository URL=https://github.com/you/your-fork
	$(if $(filter https://%,$(URL)),,$(error name the new address: make repository URL=https://github.com/you/your-fork))
	sed -i.old 's|$(OLD_URL)|$(URL:/=)|g' _config.yml README.md CITATION.cff book/*.ipynb
	rm -f *.old book/*.old

clean:
	rm -rf _build

.venv/.installed: requirements.txt constraints.txt pyproject.toml
	@echo "Making the environment in .venv: this takes a few minutes, once."
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
