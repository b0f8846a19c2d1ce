"""Sphinx extension: links to the glossary's terms with capital letters, such as [GELU](#GELU)."""

from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment


def label_terms(app: Sphinx, env: BuildEnvironment) -> None:
    """Give each term that is not in lower case a label; MyST looks for terms and labels in lower case alone."""
    domain = env.get_domain("std")
    for (kind, name), place in domain.objects.items():
        if kind == "term" and name != name.lower():
            domain.anonlabels[name.lower()] = place


def setup(app: Sphinx) -> dict:
    app.connect("env-updated", label_terms)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
