"""Train a Mixer: `python train.py --help` explains every option."""

import signal
import sys

signal.signal(signal.SIGINT, signal.SIG_DFL)  # until training begins there is nothing to save, so Ctrl-C just ends

from mixer.cli import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
