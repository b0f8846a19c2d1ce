"""Train a Mixer: `python train.py --help` explains every option."""

import sys

from mixer.train import main

if __name__ == "__main__":
    sys.exit(main())
