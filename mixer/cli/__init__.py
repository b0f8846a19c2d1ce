"""The command `python train.py`: train a Mixer on a data set and leave a checkpoint and a history.

`torchrun --nproc-per-node 2 train.py …` trains in two processes, each with its own GPU or its own share of the CPU.
"""

import io
import os
import shlex
import sys
import warnings
from contextlib import ExitStack, redirect_stderr, redirect_stdout, suppress

import torch

from mixer.cli.options import make_parser, one_line
from mixer.cli.run import Run

NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")  # CUDA and MPS; a CPU; a CPU of Windows


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns 0, or 2 after one sentence about what was wrong, or 128 + a signal's number."""
    argv = sys.argv[1:] if argv is None else argv
    with redirect_stdout(Output(sys.stdout)), redirect_stderr(Output(sys.stderr)), ExitStack() as open_folders:
        open_folders.enter_context(warnings.catch_warnings())
        given = vars(make_parser().parse_args(argv))
        warnings.showwarning = lambda message, *_: print(f"warning: {message}", file=sys.stderr)
        return attempt(given, shlex.join(["python", "train.py", *argv]), open_folders)


def attempt(given: dict, command: str, open_folders: ExitStack) -> int:
    """Train as the options say; errors become one sentence."""
    try:
        return Run(given, command, open_folders).train()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, FloatingPointError) as error:
        return refuse(error)
    except (MemoryError, RuntimeError) as error:
        if sentence := explained(error):
            return refuse(sentence)
        raise
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def explained(error: Exception) -> str | None:
    """What to do where memory ran out or torch.compile does not work; None for an error of another kind.

    torch has a class of its own for the first on CUDA alone, and where a Python is too new for the second, none.
    """
    reason = one_line(getattr(error, "inner_exception", error))
    if isinstance(error, MemoryError) or any(words in reason for words in NO_MEMORY):
        return "there is not enough memory for these sizes; choose smaller ones"
    if isinstance(error, torch._dynamo.exc.TorchDynamoException) or reason.startswith("torch.compile is not supported"):
        mend = "leave --compile out, or resume with --no-compile"
        return f"torch.compile does not work on this machine ({reason}); {mend}"
    return None


def refuse(sentence: object) -> int:
    """Print what was wrong in one line; returns the exit status."""
    print(f"train.py: {one_line(sentence)}", file=sys.stderr)
    return 2


class Output:
    """A text stream whose text is dropped once it cannot be written, so that a run outlives its terminal or pipe."""

    def __init__(self, stream):
        self.stream = stream or io.StringIO()  # None where the process was started with a closed one
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without → or é shows a question mark

    def __getattr__(self, name: str):
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        self._try(self.stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._try(self.stream.flush)

    def _try(self, action, *text: str) -> None:
        try:
            action(*text)
        except OSError:  # what is buffered would fail again when Python ends
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
