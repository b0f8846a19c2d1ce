"""Stored records of runs: JSON files in the package that chapters draw, filled run by run."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path


def fill(path: Path, head: dict, jobs: Iterable[dict], run: Callable[..., dict]) -> None:
    """Make the runs that a record lacks, and write it after each, so that it goes on where it was stopped.

    A job is what names a run and what `run` takes as keywords; the run's entry holds the job and what `run` returns.
    """
    runs = json.loads(path.read_text())["runs"] if path.exists() else []
    for job in jobs:
        if any(job.items() <= known.items() for known in runs):
            continue
        runs.append({**job, **run(**job)})
        path.write_text(json.dumps({**head, "runs": runs}, indent=1) + "\n")
        print(runs[-1], flush=True)
