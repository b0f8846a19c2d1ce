"""The folder of a run: found, locked, and its history."""

import itertools
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from mixer.checkpoint import UNFINISHED, unwritable

CHECKPOINT, HISTORY, LOCK = "checkpoint.safetensors", "history.jsonl", ".lock"


def next_free(dataset: str) -> Path:
    """Make the folder of a new run that was given none: one that no other run has used, even if both start at once.

    Raises:
        OSError: it cannot be made.
    """
    folder = Path("runs")
    try:
        folder.mkdir(exist_ok=True)
        for number in itertools.count(1):
            folder = Path("runs", dataset if number == 1 else f"{dataset}-{number}")
            with suppress(FileExistsError):
                folder.mkdir()
                return folder
    except OSError as error:
        raise OSError(f"{folder} cannot be made a folder ({error.strerror}); choose another with --out") from error


def named_folder(given: dict) -> Path | None:
    """The folder that --out or --resume names, made if it is for a new run; None if neither does.

    Raises:
        ValueError: the two contradict each other, or there is no run to resume.
        OSError: it cannot be made.
    """
    if "resume" not in given and "out" not in given:
        return None
    resumed = given.get("resume")
    if given.get("out") == "":
        raise ValueError("--out is empty; give it the name of a folder, or leave it out")
    if not resumed and "out" not in given:
        raise ValueError("--resume needs the folder of the run: --resume FOLDER")
    folder = Path(resumed or given["out"])
    if resumed and Path(given.get("out", folder)) != folder:
        raise ValueError(f"--resume {folder} goes on in its own folder; leave out --out {given['out']}")
    if resumed and not (folder / CHECKPOINT).is_file():
        raise ValueError(f"{folder} holds no {CHECKPOINT} to resume from")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"--out {folder} cannot be made a folder ({error.strerror}); choose another") from error
    return folder


def holds_run(folder: Path, may_resume: bool, is_first: bool) -> bool:
    """Whether there is a run to continue in a folder; if not, the first process says so.

    Raises:
        ValueError: there is one, and it may not be continued.
    """
    history = folder / HISTORY
    there, has_epochs = (folder / CHECKPOINT).is_file(), history.exists() and history.stat().st_size
    if not may_resume and (there or has_epochs):
        raise ValueError(f"{folder} already holds a run; add --resume to continue it, or choose another --out")
    if has_epochs and not there:
        raise ValueError(f"{folder} holds {HISTORY} but no {CHECKPOINT}; put that back, or choose another --out")
    if may_resume and not there and is_first:
        print(f"{folder} holds no checkpoint yet: starting from the beginning")
    return there


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """A context in which no other process can begin or resume a run in a folder; a kill ends it too.

    Raises:
        ValueError: another process is in such a context.
        OSError: the folder cannot be written.
    """
    try:
        lock = FileLock(folder / LOCK).acquire(timeout=0)
    except Timeout:
        raise ValueError(f"another process trains in {folder}; wait for its end, or choose another --out") from None
    except OSError as error:
        raise unwritable(folder / LOCK, error) from error
    with lock:
        for left in folder.glob(f".*{UNFINISHED}"):  # by a run that was killed
            left.unlink()
        try:
            yield
        finally:
            with suppress(OSError):  # Windows removes no open file
                (folder / LOCK).unlink()  # before the lock ends: who then waits for this file notices


def read_history(path: Path, n_epochs: int, last: dict) -> list[dict]:
    """The records of epochs 1 to n_epochs; the last one is the checkpoint's own, if the file lacks it.

    A last line that a kill cut short is left out. Epochs that are missing are named on standard error.

    Raises:
        ValueError: another line is damaged.
    """
    lines = path.read_bytes().splitlines() if path.is_file() else []
    records = {}
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            if type(record["epoch"]) is not int or record["epoch"] <= max(records, default=0):
                raise ValueError("not the next epoch")
            records[record["epoch"]] = record
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            if number < len(lines):
                raise ValueError(f"{path} is damaged in line {number}; repair it or move it away") from error
    if n_epochs and last.get("epoch") == n_epochs:
        records.setdefault(n_epochs, last)
    if missing := [str(epoch) for epoch in range(1, n_epochs + 1) if epoch not in records]:
        some = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        print(f"{path} lacks epoch {some}: these records are lost, the training is not", file=sys.stderr)
    return [records[epoch] for epoch in sorted(records) if epoch <= n_epochs]


def append_record(path: Path, record: dict) -> None:
    """Add a record to a history, so that it outlasts a power cut.

    Raises:
        OSError: it cannot be written.
    """
    try:
        with path.open("a") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise unwritable(path, error) from error
