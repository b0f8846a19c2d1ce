"""Run chapters as Colab would: `python tests/colab.py [--numpy VERSION] [CHAPTER …]`, by default all of them.

A fresh environment with Colab's generation of packages and without ours; each chapter in an empty folder, its set-up
cell verbatim, with git told to take this clone where the chapter names the book's address.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import yaml
from nbclient import NotebookClient

ROOT = Path(__file__).parents[1]
URL = yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"]
PACKAGES = ROOT / "tests" / "colab.txt"
KEPT = ("torch", "torchvision", "numpy")  # what the set-up cell must leave alone
NAME = "colab"  # of the kernel


def make_environment(folder: Path, numpy: str | None) -> Path:
    """A fresh environment in the folder; returns its Python."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    wanted = PACKAGES.read_text()
    if numpy:
        wanted = "\n".join(f"numpy=={numpy}" if line.startswith("numpy==") else line for line in wanted.splitlines())
    (folder / "packages.txt").write_text(wanted)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "-r", folder / "packages.txt"], check=True)
    kernel = folder / "share" / "jupyter" / "kernels" / NAME
    kernel.mkdir(parents=True)
    command = [str(python), "-Xfrozen_modules=off", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (kernel / "kernel.json").write_text(json.dumps({"argv": command, "display_name": NAME, "language": "python"}))
    return python


def versions(python: Path) -> dict[str, str]:
    """The versions of the packages that stay as they are."""
    code = f"from importlib.metadata import version; print(*map(version, {KEPT}))"
    printed = subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout
    return dict(zip(KEPT, printed.split(), strict=True))


def run_chapter(path: Path) -> tuple[float, float]:
    """Execute a chapter in an empty folder: the seconds of its set-up cell, and of the whole."""
    notebook = nbformat.read(path, 4)
    notebook.metadata.kernelspec = {"name": NAME, "display_name": NAME, "language": "python"}
    seconds = []
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(notebook, timeout=300, kernel_name=NAME, resources={"metadata": {"path": folder}})
        client.on_cell_executed = lambda **_: seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
        client.execute()
    return seconds[0], seconds[-1]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python tests/colab.py", description="Run chapters as Colab would.")
    parser.add_argument("chapters", nargs="*", type=Path, help="notebooks (default: all of book/)")
    parser.add_argument("--numpy", help="another version of numpy")
    options = parser.parse_args()
    if sys.version_info >= (3, 13):
        parser.error("Colab's packages need Python 3.11 or 3.12: make the environment with one of these")
    folder = Path(tempfile.mkdtemp(prefix="colab-"))
    try:
        python = make_environment(folder, options.numpy)
        before = versions(python)
        os.environ |= {
            "JUPYTER_PATH": str(folder / "share" / "jupyter"),
            "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.{ROOT.as_uri()}.insteadOf",
            "GIT_CONFIG_VALUE_0": URL,
        }
        for path in options.chapters or sorted((ROOT / "book").glob("*.ipynb")):
            set_up, whole = run_chapter(path)
            print(f"{path.stem}: {whole:.0f} s, of which {set_up:.0f} s set-up", flush=True)
        if versions(python) != before:
            raise SystemExit(f"the set-up cell changed {before} into {versions(python)}")
        print(f"unchanged: {before}")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
