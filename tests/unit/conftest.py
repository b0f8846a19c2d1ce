"""What the unit tests share: the command and its runs, and weights in the official layout."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mixer import checkpoint
from mixer.cli import main

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def say():
    def make(*options):
        """Run the command in this process: its exit status."""
        try:
            return main([str(option) for option in options])
        except SystemExit as stop:
            return stop.code

    return make


@pytest.fixture(scope="session")
def start():
    def heed_signals():
        """As in a terminal: under nohup or in the background, a process inherits that some signals are ignored."""
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

    def make(*options, folder=ROOT, python=()):
        """Run the command as a process of its own, with options of Python's before it."""
        command = [sys.executable, *python, ROOT / "train.py", *map(str, options)]
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf-8")
        return subprocess.Popen(command, cwd=folder, preexec_fn=heed_signals, **pipes)

    return make


@pytest.fixture(scope="session")
def weights():
    def make(folder):
        return {
            n: t for n, t in checkpoint.read(folder / "checkpoint.safetensors")[0].items() if n.startswith("model.")
        }

    return make


@pytest.fixture(scope="session")
def history():
    def make(folder):
        return [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]

    return make


@pytest.fixture(scope="session")
def without_times():
    def make(records):
        return [{k: v for k, v in r.items() if k not in ("seconds", "images_per_second")} for r in records]

    return make


@pytest.fixture(scope="session")
def as_official():
    def make(model):
        """timm's parameters under the names and in the layouts of the official files."""
        arrays = {}
        for name, p in model.state_dict().items():
            value = p.numpy()
            if value.ndim == 4:
                value = value.transpose(2, 3, 1, 0)  # OIHW → HWIO
            elif value.ndim == 2:
                value = value.T
            is_norm = "norm" in name
            name = name.replace("stem.proj", "stem").replace("blocks.", "MixerBlock_")
            name = name.replace("norm1", "LayerNorm_0").replace("norm2", "LayerNorm_1")
            name = name.replace("mlp_tokens", "token_mixing").replace("mlp_channels", "channel_mixing")
            name = name.replace("fc1", "Dense_0").replace("fc2", "Dense_1")
            name = name.replace("weight", "scale" if is_norm else "kernel")
            name = "pre_head_layer_norm" + name.removeprefix("norm") if name.startswith("norm") else name
            arrays[name.replace(".", "/")] = value
        return arrays

    return make
