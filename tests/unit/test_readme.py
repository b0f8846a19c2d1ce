"""The Python of README: every block runs alone in a fresh process, with a small model in the place of a large one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from timm.models.mlp_mixer import MlpMixer

from mixer import load_checkpoint

ROOT = Path(__file__).parents[2]

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
SMALL = "num_classes=5, img_size=32, patch_size=8, num_blocks=2, embed_dim=24"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
PLACED = {
    'timm.create_model("mixer_b16_224", pretrained=True)': f"timm.models.mlp_mixer.MlpMixer({SMALL})",
    "image_size=224": "image_size=32",
}


@pytest.fixture
def place(tmp_path, as_official, say):
    """A folder of pictures in two colours, a run trained on them, a new picture, and an official file."""
    random = np.random.default_rng(0)
    for part, n in (("train", 24), ("test", 6)):
        for channel, name in enumerate(("red", "green")):
            (tmp_path / "pictures" / part / name).mkdir(parents=True)
            for i in range(n):
                pixels = random.integers(0, 60, (40, 48, 3), dtype=np.uint8)
                pixels[..., channel] += 180
                Image.fromarray(pixels).save(tmp_path / "pictures" / part / name / f"{i}.png")
    Image.fromarray(pixels).save(tmp_path / "new.jpg")
    run = ["--dataset", "folder", "--data_dir", tmp_path / "pictures", "--out", tmp_path / "runs" / "folder"]
    assert say(*run, "--n_layers", 1, "--n_channel", 8, "--n_hidden", 8, "--n_epochs", 1) == 0
    small = MlpMixer(num_classes=5, img_size=32, patch_size=8, num_blocks=2, embed_dim=24)
    np.savez(tmp_path / "Mixer-B_16.npz", **as_official(small))
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("code", BLOCKS, ids=range(len(BLOCKS)))
def test_a_block_runs_alone(place, code):
    for large, small in PLACED.items():
        code = code.replace(large, small)
    assert "pretrained" not in code.replace("mixer.pretrained", "")
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    if "save_checkpoint" in code:
        model, about = load_checkpoint(place / "pictures.safetensors")
        assert model.config["n_output"] == 2
        assert about["class_names"] == ["green", "red"]
        assert re.search(r"'accuracy': 1\.0", done.stdout)
        assert done.stdout.splitlines()[-1].startswith("{'green': ")  # the new picture's class comes first


def test_readme_shows_all_ways():
    text = "\n".join(BLOCKS)
    assert len(BLOCKS) >= 4
    for name in ("MLPMixer(", "from_timm(", "from_official(", "n_output=", "mixer.fit(", "mixer.classify(", "explorer"):
        assert name in text
