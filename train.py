"""Train a Mixer: `python train.py --help` explains every option."""

import signal
import sys

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # not in a worker that loads images
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # until training begins there is nothing to save, so Ctrl-C just ends

from mixer.cli import main

if __name__ == "__main__":
    sys.exit(main())
