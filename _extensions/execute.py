"""Sphinx extension: what the execution of a chapter leaves in its page does not depend on chance."""

from functools import partial

from jupyter_cache.executors import utils
from nbclient import execute
from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict:
    """Execute as `make notebooks` does.

    What a cell prints arrives in pieces cut at any moment, and they are joined before anything reads them. The state
    of the widgets has random names, is as large as the figures themselves, and no page reads it.
    """
    utils.executenb = partial(execute, coalesce_streams=True, store_widget_state=False)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
