"""What the tests of the book share: its pages."""

from pathlib import Path

import pytest
import yaml

TOC = yaml.safe_load((Path(__file__).parents[2] / "_toc.yml").read_text(encoding="utf-8"))
PAGES = [TOC["root"], *(chapter["file"] for part in TOC["parts"] for chapter in part["chapters"])]


@pytest.fixture(scope="session")
def toc():
    """The table of contents."""
    return TOC


@pytest.fixture(scope="session")
def pages():
    """The names of all pages, in order."""
    return PAGES


@pytest.fixture(scope="module", params=PAGES)
def name(request):
    """The name of a page: each test that takes it runs once for every page."""
    return request.param


@pytest.fixture(scope="session")
def page_text(book):
    """The HTML of a page of the built book, by its name."""
    return lambda name: (book / f"{name}.html").read_text(encoding="utf-8")
