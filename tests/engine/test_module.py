"""The compiled engine that is shipped: it is what its source gives, and it is small."""

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "mixer/widgets/engine.wasm"


def test_the_module_is_what_the_source_gives(tmp_path):
    made = tmp_path / "engine.wasm"
    subprocess.run(["make", "engine", f"OUT={made}"], cwd=ROOT, check=True)
    assert made.read_bytes() == MODULE.read_bytes()
    assert MODULE.stat().st_size <= 40_000
