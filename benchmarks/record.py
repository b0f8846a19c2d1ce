"""What the scripts of stored runs share: their command line, the data, and JSON files that are filled run by run."""

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from mixer import load_data
from mixer.checkpoint import write_whole
from mixer.data import DataSet

SEEDS = (1, 2, 3)


def choose(script: str, names: Iterable[str] = (), seeds: Iterable[int] = SEEDS) -> argparse.Namespace:
    """The folder of the data, and which names and seeds to make: all that there are, unless some are named.

    Parts of a record can be made side by side in this way, one on each core. `script` is the text at its top.
    """
    parser = argparse.ArgumentParser(description=script.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of the data")
    parser.set_defaults(names=[])
    if names:
        parser.add_argument("names", nargs="*", metavar="NAME", help=f"which (default: all of {'; '.join(names)})")
    parser.add_argument("--seeds", type=int, nargs="+", choices=seeds, default=seeds, help="which (default: all)")
    options = parser.parse_args()
    if unknown := set(options.names) - set(names):
        parser.error(f"{'; '.join(sorted(unknown))} is not known; choose from {'; '.join(names)}")
    options.names = options.names or names
    return options


def load(name: str, folder: Path) -> DataSet:
    """A data set; where it is not to be had, the script ends with the sentence that says why."""
    try:
        return load_data(name, folder)
    except (OSError, ValueError) as error:
        sys.exit(f"{Path(sys.argv[0]).stem}: {error}")


def fill(path: Path, head: dict, jobs: Iterable[dict], run: Callable[..., dict]) -> None:
    """Make the runs that a record lacks, and write it after each, so that it goes on where it was stopped.

    A job is what names a run and what `run` takes as keywords; the run's entry holds the job and what `run` returns,
    and the torch and the hardware of this process where the head, which stays that of the first run, names others.
    """
    head = json.loads(json.dumps(head))  # tuples become lists, as in the file

    def known() -> dict:
        return json.loads(path.read_text()) if path.exists() else {**head, "runs": []}

    other = {name: value for name, value in head.items() if value != known().get(name)}
    here = {name: other.pop(name) for name in ("torch", "hardware") if name in other}
    for job in jobs:
        if any(job.items() <= done.items() for done in known()["runs"]):
            continue
        if other and path.exists():
            sys.exit(f"{path} was made with another {' and '.join(other)}; move it away to make all its runs anew")
        made = {**job, **run(**job), **here}
        record = known()  # another process may have added some
        record["runs"].append(made)
        write_whole(path, (json.dumps(record, indent=1) + "\n").encode())
        print(made, flush=True)
