"""Runs under faults that are drawn by chance: signals, two processes, damaged state and history, odd folders of images.

`make fuzz` draws many more: hypothesis' profile "long".
"""

import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mixer import checkpoint, data

ROOT = Path(__file__).parents[2]
OPTIONS = ["--n_layers", "1", "--n_channel", "8", "--n_hidden", "8", "--num_threads", "1", "--batch_size", "16"]
OPTIONS += ["--recipe", "strong", "--precision", "fp32", "--n_epochs", "8"]
SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP", "SIGKILL"]
IS_LONG = settings.get_current_profile_name() == "long"
ODD = [None, -1, 0, 2, 1.5, 1e308, float("nan"), "", "word", [], [1, [2]], {}, {"scale": 1}, True, 2**70]
pytestmark = pytest.mark.slow


def times(short: int, long: int):
    """How often a test draws: in every run of the tests, and in the long one."""
    return settings(max_examples=long if IS_LONG else short, deadline=None)


def command(n_processes, *options):
    """The command in words, for one process or for several."""
    launch = [sys.executable]
    if n_processes > 1:
        launch += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", n_processes]
    return list(map(str, [*launch, ROOT / "train.py", *options]))


def run(n_processes, *options):
    return subprocess.run(command(n_processes, *options), capture_output=True, text=True, timeout=250, cwd=ROOT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


@pytest.fixture(scope="module")
def whole(folder):
    """Runs that nothing interrupted, in one process and in two."""

    def make(n_processes):
        out = folder / f"whole-{n_processes}"
        if not out.exists():
            assert run(n_processes, *OPTIONS, "--out", out).returncode == 0
        return out

    return make


def interrupt_and_resume(folder, n_processes, moment, name, whole, history, weights, without_times):
    """Stop a run by a signal at a moment after its first save, resume it, and compare it with one that was not."""
    out, expected = folder / "interrupted", whole(n_processes)
    shutil.rmtree(out, ignore_errors=True)
    process = subprocess.Popen(
        command(n_processes, *OPTIONS, "--out", out), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not (out / "checkpoint.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(moment)
    process.send_signal(getattr(signal, name))
    process.wait(timeout=120)
    done = run(n_processes, "--resume", out)
    while "another process trains" in done.stderr:  # a worker whose launcher was killed ends a little later
        done = run(n_processes, "--resume", out)
    assert done.returncode == 0, done.stderr
    assert [record["epoch"] for record in history(out)] == list(range(1, 9))
    assert without_times(history(out)) == without_times(history(expected))
    ours, theirs = weights(out), weights(expected)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@times(3, 170)
@given(moment=st.floats(0, 1.5), name=st.sampled_from(SIGNALS))
def test_a_run_stopped_at_any_moment_resumes_bit_for_bit(folder, moment, name, whole, history, weights, without_times):
    interrupt_and_resume(folder, 1, moment, name, whole, history, weights, without_times)


@times(1, 30)
@given(moment=st.floats(0, 3), name=st.sampled_from(SIGNALS))
def test_two_processes_stopped_at_any_moment_resume_bit_for_bit(
    folder, moment, name, whole, history, weights, without_times
):
    interrupt_and_resume(folder, 2, moment, name, whole, history, weights, without_times)


@times(1, 30)
@given(delay=st.floats(0, 2))
def test_of_two_runs_in_one_folder_one_trains(folder, delay, history):
    out = folder / "shared"
    shutil.rmtree(out, ignore_errors=True)
    processes = []
    for pause in (delay, 0):
        process = subprocess.Popen(command(1, *OPTIONS, "--out", out), cwd=ROOT, stderr=subprocess.PIPE, text=True)
        processes.append(process)
        time.sleep(pause)
    said = [process.communicate(timeout=250)[1].strip().splitlines()[-1] for process in processes]
    assert sorted(process.returncode for process in processes) == [0, 2]
    (refused,) = [line for process, line in zip(processes, said, strict=True) if process.returncode]
    assert "another process trains in" in refused or "already holds a run" in refused
    assert [record["epoch"] for record in history(out)] == list(range(1, 9))


def resumed(say, out):
    """Resume a run in this process: its status, which agrees with what it said."""
    with redirect_stderr(io.StringIO()) as stream, redirect_stdout(io.StringIO()):
        status = say("--resume", out, "--n_epochs", 9)
    said = [line for line in re.split(r"[\r\n]", stream.getvalue()) if line.startswith("train.py: ")]
    assert status in (0, 2)
    assert len(said) == (status == 2)
    return status


def copied(source, out):
    """A fresh copy of a run."""
    shutil.rmtree(out, ignore_errors=True)
    return shutil.copytree(source, out)


def damage(stored, drawn):
    """Replace, rename or leave out something in a dictionary, also in one inside of it."""
    name = drawn.draw(st.sampled_from(sorted(stored)))
    if isinstance(stored[name], dict) and stored[name] and drawn.draw(st.booleans()):
        return damage(stored[name], drawn)
    kind = drawn.draw(st.sampled_from(["replace", "leave out"]))
    if kind == "replace":
        stored[name] = drawn.draw(st.sampled_from(ODD))
    else:
        del stored[name]


def damage_tensor(tensors, drawn):
    """Give a tensor another size, type or name, or leave it out."""
    name = drawn.draw(st.sampled_from(sorted(tensors)))
    tensor = tensors.pop(name)
    kind = drawn.draw(st.sampled_from(["longer", "shorter", "double", "renamed", "left out", "flat"]))
    if kind == "longer":
        tensors[name] = torch.cat([tensor.flatten(), torch.ones(3, dtype=tensor.dtype)])
    elif kind == "shorter":
        tensors[name] = tensor.flatten()[:-1]
    elif kind == "double":
        tensors[name] = tensor.double()
    elif kind == "renamed":
        tensors[name + drawn.draw(st.sampled_from(["x", ".y", "0"]))] = tensor
    elif kind == "flat":
        tensors[name] = tensor[None]


@times(25, 1500)
@given(drawn=st.data())
def test_any_stored_state_with_a_valid_checksum_is_resumed_or_refused(folder, whole, drawn, say, history):
    out = copied(whole(1), folder / "stored")
    path = out / "checkpoint.safetensors"
    model, about = checkpoint.load(path)
    tensors = {name: t for name, t in checkpoint.read(path)[0].items() if not name.startswith("model.")}
    del about["config"]
    damage_tensor(tensors, drawn) if drawn.draw(st.booleans()) else damage(about, drawn)
    checkpoint.save(path, model, about, tensors)
    if resumed(say, out) == 0:
        assert history(out)[-1]["epoch"] == 9


@times(15, 500)
@given(drawn=st.data())
def test_any_history_is_continued_or_refused(folder, whole, drawn, say, history):
    out = copied(whole(1), folder / "history")
    lines = (out / "history.jsonl").read_bytes().splitlines(keepends=True)
    for _ in range(drawn.draw(st.integers(1, 3))):
        k = drawn.draw(st.integers(0, max(0, len(lines) - 1)))
        kind = drawn.draw(st.sampled_from(["drop", "twice", "cut", "bytes", "swap", "text"]))
        if not lines:
            break
        line = lines[k]
        other = drawn.draw(
            st.sampled_from([b"{}\n", b"[]\n", b"\xff\n", b'{"epoch": "x"}\n', b"[" * 5000 + b"\n", b"\n"])
        )
        lines[k : k + 1] = {
            "drop": [],
            "twice": [line, line],
            "cut": [line[: len(line) // 2]],
            "bytes": [bytes(reversed(line))],
            "swap": [lines[-1 - k], line],
            "text": [other],
        }[kind]
    (out / "history.jsonl").write_bytes(b"".join(lines))
    before = (out / "checkpoint.safetensors").read_bytes()
    if resumed(say, out) == 0:
        epochs = [record["epoch"] for record in history(out)]
        assert epochs == sorted(set(epochs)) and {8, 9} <= {*epochs}
    else:
        assert (out / "checkpoint.safetensors").read_bytes() == before


def grow(path, drawn, depth=0):
    """Fill a folder with images, junk, links, pipes and further folders."""
    path.mkdir(parents=True, exist_ok=True)
    for _ in range(drawn.draw(st.integers(0, 4))):
        name = drawn.draw(st.sampled_from(["a", "b.png", "C.PNG", ".c.png", "d.gif", "._b.png", "__MACOSX", "e"]))
        place = path / name
        if place.exists() or place.is_symlink():
            continue
        kind = drawn.draw(st.sampled_from(["image", "text", "pipe", "link", "folder", "empty", "postscript"]))
        if kind == "image":
            Image.new("RGB", (5, 4), "red").save(place, "PNG")
        elif kind == "text":
            place.write_text("no image")
        elif kind == "postscript":
            place.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n")
        elif kind == "pipe":
            os.mkfifo(place)
        elif kind == "link":
            place.symlink_to(drawn.draw(st.sampled_from([".", "..", "../..", "nowhere", "a", "/dev/zero"])))
        elif kind == "folder" and depth < 2:
            grow(place, drawn, depth + 1)
        else:
            place.touch()


@times(40, 1000)
@given(drawn=st.data())
def test_any_tree_of_files_is_a_data_set_or_a_sentence(folder, drawn):
    root = folder / "tree"
    shutil.rmtree(root, ignore_errors=True)
    for part in ("train", "test"):
        for name in ("ant", "bee"):
            grow(root / part / name, drawn)
    n_files = sum(path.is_file() and not path.is_symlink() for path in root.rglob("*"))
    try:
        images = data.load("folder", root, image_size=4)
    except (OSError, ValueError) as error:
        assert "\n" not in str(error)
    else:
        assert len(images.train) + len(images.validation) + len(images.test) <= n_files
