"""The command under the package's name: `python -m mixer.train` is the same as `python train.py`."""

import sys

from mixer.cli import main

if __name__ == "__main__":
    sys.exit(main())
