"""Sphinx extension: what the appendices say of the code is taken from the code, when the book is built.

And citations without brackets of their own, as they stand in the text: (Tolstikhin et al., 2021, section 2).
"""

import importlib.metadata
import platform
import re
from dataclasses import dataclass, field

from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinxcontrib.bibtex.plugin import register_plugin
from sphinxcontrib.bibtex.style.referencing import BracketStyle
from sphinxcontrib.bibtex.style.referencing.author_year import AuthorYearReferenceStyle


def command_options() -> list[tuple[str, str]]:
    """The options of the training command, as they are typed, and what --help says of each."""
    from mixer.cli.options import make_parser

    parser = make_parser()
    formatter = parser._get_formatter()
    found = []
    for action in parser._actions:
        value = "" if action.nargs == 0 else " " + formatter._format_args(action, action.dest.upper())
        found.append((f"{action.option_strings[0]}{value}", formatter._expand_help(action)))
    return found


class CommandOptions(SphinxDirective):
    """A definition list of the training command's options."""

    def run(self) -> list[nodes.Node]:
        items = []
        for option, text in command_options():
            term = nodes.term("", "", nodes.literal(option, option))
            items.append(nodes.definition_list_item("", term, nodes.definition("", nodes.paragraph(text, text))))
        return [nodes.definition_list("", *items)]


def licence(metadata: importlib.metadata.PackageMetadata) -> str:
    """The licence that a package names: as an expression, a short field, a classifier, or a long text's first line."""
    lines = (metadata.get("License") or "").strip().splitlines()
    kinds = [line.split(" :: ")[-1] for line in metadata.get_all("Classifier") or [] if line.startswith("License ::")]
    short = lines[0] if len(lines) == 1 else ""
    return metadata.get("License-Expression") or short or ", ".join(kinds) or (lines or ["not named"])[0]


class Packages(SphinxDirective):
    """A table of the Python and of the packages that built this page: the named ones, or those that one needs."""

    has_content = True
    option_spec = {"needed-by": directives.unchanged}  # noqa: RUF012 (as docutils wants it)

    def run(self) -> list[nodes.Node]:
        needs = importlib.metadata.requires(self.options["needed-by"]) if "needed-by" in self.options else []
        names = [re.match(r"[\w.-]+", need)[0] for need in needs if "extra ==" not in need]
        rows = [["package", "version", "licence"]]
        if needs:
            rows.append(["Python", platform.python_version(), "PSF-2.0"])
        for name in names + " ".join(self.content).split():
            metadata = importlib.metadata.metadata(name)
            rows.append([name, metadata["Version"], licence(metadata)])
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        return self.parse_text_to_nodes("\n".join([lines[0], "|---|---|---|", *lines[1:]]))


def mark_words(app: Sphinx, what: str, name: str, thing: object, options: dict, lines: list[str]) -> None:
    """Make the words stand out with which the docstrings begin what they always say."""
    lines[:] = [re.sub(r"\b(Shapes|Source|Traits|Names and shapes):(?= )", r"**\1:**", line) for line in lines]


@dataclass
class PlainAuthorYear(AuthorYearReferenceStyle):
    """Author and year, without brackets."""

    bracket_parenthetical: BracketStyle = field(default_factory=lambda: BracketStyle(left="", right=""))


def setup(app: Sphinx) -> dict:
    register_plugin("sphinxcontrib.bibtex.style.referencing", "plain_author_year", PlainAuthorYear)
    app.add_directive("command-options", CommandOptions)
    app.add_directive("packages", Packages)
    app.connect("autodoc-process-docstring", mark_words)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
