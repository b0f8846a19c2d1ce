"""Stored records of runs: JSON files in the package that chapters draw, filled run by run."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path


def fill(path: Path, head: dict, jobs: Iterable[dict], run: Callable[..., dict]) -> None:
    """Make the runs that a record lacks, and write it after each, so that it goes on where it was stopped.

    A job is what names a run and what `run` takes as keywords; the run's entry holds the job and what `run` returns.
    """

    def known() -> list[dict]:
        return json.loads(path.read_text())["runs"] if path.exists() else []

    for job in jobs:
        if any(job.items() <= done.items() for done in known()):
            continue
        made = {**job, **run(**job)}
        runs = [*known(), made]  # another process may have added some
        path.write_text(json.dumps({**head, "runs": runs}, indent=1) + "\n")
        print(made, flush=True)
