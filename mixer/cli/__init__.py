"""The command `python train.py`: train a Mixer on a data set and leave a checkpoint and a history.

`torchrun --nproc-per-node 2 train.py …` trains in two processes, each with its own GPU or its own share of the CPU.
"""

import shlex
import sys

import torch

from mixer.cli.options import make_parser, one_line
from mixer.cli.run import Run


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns 0, or 2 after one sentence about what was wrong, or 130 after Ctrl-C."""
    argv = sys.argv[1:] if argv is None else argv
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without → or é shows a question mark
    given = vars(make_parser().parse_args(argv))
    try:
        return Run(given, shlex.join(["python", "train.py", *argv])).train()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError, FloatingPointError) as error:
        return refuse(error)
    except (MemoryError, torch.OutOfMemoryError):
        return refuse("there is not enough memory for these sizes; choose smaller ones")
    except torch._dynamo.exc.TorchDynamoException as error:
        reason = one_line(getattr(error, "inner_exception", error))
        mend = "leave --compile out, or resume with --no-compile"
        return refuse(f"torch.compile does not work on this machine ({reason}); {mend}")
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def refuse(sentence: object) -> int:
    """Print what was wrong in one line; returns the exit status."""
    print(f"train.py: {one_line(sentence)}", file=sys.stderr)
    return 2
