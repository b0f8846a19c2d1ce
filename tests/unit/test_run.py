"""A run and its folder under faults: signals, two processes, damaged state, a diverged loss, a full disk."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mixer import checkpoint
from mixer.cli.run import Run
from mixer.cli.state import check_tensors

ROOT = Path(__file__).parents[2]
QUICK = ["--recipe", "seed", "--n_layers", "1", "--n_channel", "8", "--n_hidden", "8", "--num_threads", "1"]

LONG = [*QUICK, "--n_epochs", "3000", "--precision", "fp32"]


def wait_for_epoch(process):
    """Wait until an epoch is printed, and so saved."""
    while process.stdout.readline()[:5] != "epoch":
        assert process.poll() is None, process.stderr.read()


@pytest.fixture(scope="session")
def assert_continues(say, weights, history, without_times):
    def make(out, tmp_path, n_epochs):
        """A resumed run ends with the weights and the history of one that nothing interrupted."""
        assert say("--resume", out, "--n_epochs", n_epochs) == 0
        assert say(*QUICK, "--precision", "fp32", "--n_epochs", n_epochs, "--out", tmp_path / "whole") == 0
        assert without_times(history(out)) == without_times(history(tmp_path / "whole"))
        whole, parts = weights(tmp_path / "whole"), weights(out)
        assert all(torch.equal(whole[name], parts[name]) for name in whole)

    return make


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_every_signal_that_ends_a_process_saves_first(tmp_path, name, start, assert_continues):
    out, number = tmp_path / "run", getattr(signal, name)
    process = start(*LONG, "--out", out)
    wait_for_epoch(process)
    process.send_signal(number)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 128 + number, stderr
    assert f"saved; go on with: python train.py --resume {out}" in stdout
    step = checkpoint.read(out / "checkpoint.safetensors")[1]["step"]
    assert step > 0
    assert_continues(out, tmp_path, step // 21 + 2)


@pytest.mark.slow
def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    command = [sys.executable, ROOT / "train.py", *LONG, "--out", tmp_path / "run"]
    ignored = f"trap '' HUP; exec {' '.join(map(str, command))}"  # as nohup starts it
    process = subprocess.Popen(["sh", "-c", ignored], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for_epoch(process)
    process.send_signal(signal.SIGHUP)
    wait_for_epoch(process)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM


@pytest.mark.slow
def test_two_processes_stop_after_the_same_step(tmp_path, history):
    """torchrun hands on Ctrl-C; both processes save one state, from which the run goes on."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, ROOT / "train.py", *LONG, "--out", tmp_path / "run"]
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    wait_for_epoch(process)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert "saved; go on with" in stdout, stderr
    n_done = len(history(tmp_path / "run"))
    done = subprocess.run(
        [*map(str, launch), str(ROOT / "train.py"), "--resume", str(tmp_path / "run"), "--n_epochs", str(n_done + 2)],
        capture_output=True, text=True, timeout=120, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [record["epoch"] for record in history(tmp_path / "run")] == list(range(1, n_done + 3))


AGREE = """
import torch
from mixer import MLPMixer, data, training
from mixer.devices import join_processes

join_processes("cpu")
sizes = dict(n_layers=1, n_channel=8, n_hidden=8, n_output=10, image_size=8, patch_size=2, n_image_channel=1)
recipe = training.Recipe(n_epochs=3)
trainer = training.Trainer(MLPMixer(**sizes), data.load("digits"), recipe, device="cpu", precision="fp32")
all_reduce = torch.distributed.all_reduce

def reduce_and_stop(*args):
    trainer.stop |= trainer.rank == 1 and trainer.step == 3
    all_reduce(*args)

{when}
print(f"process {{trainer.rank}} stopped after {{trainer.step}} of {{trainer.n_steps}} steps\\n", end="")  # one piece
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "when, step",
    [
        ("for record in trainer: trainer.stop = trainer.rank == 1", 6),  # during the validation, say
        ("torch.distributed.all_reduce = reduce_and_stop; list(trainer)", 4),
    ],
    ids=["between epochs", "while they agree"],
)
def test_two_processes_stop_together_when_one_is_told_to(tmp_path, when, step):
    """A signal that comes to one process at a bad moment is not lost, and the other does not go on alone."""
    script = tmp_path / "script.py"
    script.write_text(AGREE.format(when=when))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [f"process {n} stopped after {step} of 18 steps" for n in (0, 1)]


def test_fewer_epochs_than_a_run_has_begun_are_refused(tmp_path, capsys, say):
    """Else the test would be of weights that belong to no epoch."""
    keep = Run.take_snapshot

    def keep_and_stop(self):
        keep(self)
        self.trainer.stop = self.trainer.step == 30  # an epoch has 21 steps

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "take_snapshot", keep_and_stop)
        assert say(*QUICK, "--n_epochs", 3, "--out", tmp_path / "run") == 130
    assert say("--resume", tmp_path / "run", "--n_epochs", 1) == 2
    assert "--n_epochs is 1, but the run has come to epoch 2 already" in capsys.readouterr().err


@pytest.mark.slow
def test_a_second_process_in_a_folder_gets_a_sentence(tmp_path, capsys, say, start, assert_continues):
    out = tmp_path / "run"
    process = start(*LONG, "--out", out)
    wait_for_epoch(process)
    for options in (["--resume", out], [*QUICK, "--out", out], ["--out", out, "--resume"]):
        assert say(*options) == 2
        sentence = f"train.py: another process trains in {out}; wait for its end, or choose another --out\n"
        assert capsys.readouterr().err == sentence
    process.kill()  # which ends the lock too
    process.communicate()
    n_done = checkpoint.read(out / "checkpoint.safetensors")[1]["step"] // 21
    assert_continues(out, tmp_path, n_done + 1)


@pytest.mark.slow
def test_two_savers_on_one_path_leave_a_whole_file(tmp_path):
    path = tmp_path / "file"
    code = "import sys; from pathlib import Path; from mixer.checkpoint import write_whole\n"
    code += "for _ in range(300): write_whole(Path(sys.argv[1]), sys.argv[2].encode() * 200_000)"
    savers = [subprocess.Popen([sys.executable, "-c", code, path, letter], cwd=ROOT) for letter in "ab"]
    wrong = 0
    while any(saver.poll() is None for saver in savers):
        if path.exists():
            content = path.read_bytes()
            wrong += len(content) != 200_000 or len(set(content)) != 1
    assert wrong == 0
    assert [saver.returncode for saver in savers] == [0, 0]
    assert list(tmp_path.iterdir()) == [path]


def test_a_saved_file_keeps_its_mode_and_follows_no_link(tmp_path):
    path, other = tmp_path / "file", tmp_path / "other"
    other.write_text("untouched")
    (tmp_path / ".file.unfinished").symlink_to(other)
    checkpoint.write_whole(path, b"old")
    path.chmod(0o600)
    checkpoint.write_whole(path, b"new")
    assert (path.read_bytes(), path.stat().st_mode & 0o777, other.read_text()) == (b"new", 0o600, "untouched")


def test_a_run_that_diverges_keeps_its_last_good_checkpoint(tmp_path, capsys, say):
    out = tmp_path / "run"
    assert say(*QUICK, "--n_epochs", 1, "--lr", "1e38", "--out", out) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the loss is no longer a number in epoch 1; choose a smaller lr, for instance --resume" in said
    tensors, about = checkpoint.read(out / "checkpoint.safetensors")
    assert about["step"] == 0 and all(tensor.isfinite().all() for tensor in tensors.values())
    assert say("--resume", out, "--lr", "1e39") == 2  # only lower
    assert say("--resume", out, "--lr", "0.003") == 0
    assert checkpoint.read(out / "checkpoint.safetensors")[1]["options"]["lr"] == 0.003


def test_weights_that_are_no_numbers_are_never_saved(tmp_path, monkeypatch, capsys, say):
    """A loss that is still a number, and weights that are none: as after the last step before Ctrl-C."""
    out = tmp_path / "run"
    assert say(*QUICK, "--n_epochs", 1, "--out", out) == 0
    before = (out / "checkpoint.safetensors").read_bytes()

    def diverge(trainer, loss):
        trainer.learner.output.linear.weight.data.fill_(torch.nan)
        trainer.stop = True

    monkeypatch.setattr("mixer.training.Trainer.update", diverge)
    assert say("--resume", out, "--n_epochs", 2) == 2
    assert "the loss is no longer a number in epoch 2" in capsys.readouterr().err
    assert (out / "checkpoint.safetensors").read_bytes() == before


def stored(out, change=None, tensors=None):
    """Write the checkpoint of a run again, with a change in its metadata or its tensors and a valid checksum."""
    path = out / "checkpoint.safetensors"
    found, about = checkpoint.read(path)
    model, _ = checkpoint.load(path)
    (change or (lambda about: None))(about)
    extra = {name: tensor for name, tensor in found.items() if not name.startswith("model.")}
    (tensors or (lambda extra: None))(extra)
    checkpoint.save(path, model, {k: v for k, v in about.items() if k != "config"}, extra)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, say):
    """A finished run by the recipe that stores most."""
    out = tmp_path_factory.mktemp("finished") / "run"
    assert say(*QUICK, "--recipe", "strong", "--n_epochs", 1, "--out", out) == 0
    return out


@pytest.fixture(scope="session")
def assert_refused(say):
    def make(finished, tmp_path, capsys, change=None, tensors=None):
        out = tmp_path / "run"
        out.mkdir()
        for name in ("checkpoint.safetensors", "history.jsonl"):
            (out / name).write_bytes((finished / name).read_bytes())
        stored(out, change, tensors)
        before = (out / "checkpoint.safetensors").read_bytes()
        assert say("--resume", out, "--n_epochs", 2) == 2
        assert capsys.readouterr().err.count("\n") == 1
        assert (out / "checkpoint.safetensors").read_bytes() == before

    return make


MIXED = "layers.0.token_mixing.fc1.weight"
TENSORS = {
    "another size": lambda extra: extra.update({"optimiser.1.0.exp_avg": torch.zeros(99)}),
    "one number short": lambda extra: extra.update({"optimiser.1.0.exp_avg": extra["optimiser.1.0.exp_avg"][:-1]}),
    "another type": lambda extra: extra.update({"optimiser.1.0.exp_avg": extra["optimiser.1.0.exp_avg"].double()}),
    "missing": lambda extra: extra.pop("optimiser.1.0.exp_avg_sq"),
    "none at all": lambda extra: [extra.pop(name) for name in list(extra) if name.startswith("optimiser.")],
    "an unknown optimiser": lambda extra: extra.update({"optimiser.7.0.exp_avg": torch.zeros(1)}),
    "an odd name": lambda extra: extra.update({"optimiser.x": torch.zeros(1)}),
    "a momentum of another size": lambda extra: extra.update({"optimiser.0.0.momentum_buffer": torch.zeros(2, 2)}),
    "no learner": lambda extra: [extra.pop(name) for name in list(extra) if name.startswith("learner.")],
    "another learner": lambda extra: extra.update({"learner.output.linear.bias": torch.zeros(3)}),
    "sums of another size": lambda extra: extra.update({"sums": torch.zeros(3)}),
    "no sums": lambda extra: extra.pop("sums"),
    "a snapshot of another size": lambda extra: extra.update({f"snapshot.0.{MIXED}": torch.zeros(2, 2).half()}),
    "a snapshot of an unknown weight": lambda extra: extra.update({"snapshot.0.layers.9.x": torch.zeros(2).half()}),
    "a snapshot of a later step": lambda extra: extra.update(
        {f"snapshot.999.{MIXED}": extra[f"snapshot.0.{MIXED}"].clone()}
    ),
}


@pytest.mark.parametrize("tensors", TENSORS.values(), ids=TENSORS)
def test_a_tensor_of_the_state_that_does_not_fit_is_refused(finished, tmp_path, capsys, tensors, assert_refused):
    assert_refused(finished, tmp_path, capsys, tensors=tensors)


FIELDS = {
    "step": [-1, 1.5, "3", None, True],
    "seconds": [-1.0, "long", None, float("inf")],
    "scaler": [{"scale": "x"}, [], None],
    "options": [{}, {"dataset": "imagenet"}, [], {"dataset": "digits", "n_layers": "two"}],
    "metrics": [[], None, "good"],
    "command": [3, None],
    "fingerprint": ["other", None],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in FIELDS.items() for value in values])
def test_a_field_of_the_state_that_does_not_fit_is_refused(finished, tmp_path, capsys, name, value, assert_refused):
    assert_refused(finished, tmp_path, capsys, change=lambda about: about.update({name: value}))


NAN = float("nan")
OPTIONS = dict(n_layers=[0, 2, "1", 1.0], n_hidden=[9], patch_size=[3], norm=["rows"], shuffle=["x"], lr=["a", -1])
OPTIONS |= dict(batch_size=[0, 2**40], recipe=["best"], seed=[-1, "1"], device=[3, NAN], compile=[1], unknown=[1])
OPTIONS |= dict(dataset=[[], {}, 3, "x"], data_dir=[NAN, []], num_threads=[NAN, "2"], lr=["a", -1, [], NAN])


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in OPTIONS.items() for value in values])
def test_a_stored_option_that_does_not_fit_is_refused(finished, tmp_path, capsys, name, value, assert_refused):
    assert_refused(finished, tmp_path, capsys, change=lambda about: about["options"].update({name: value}))


def test_check_tensors_takes_what_it_expects():
    check_tensors({"sums": {"": torch.zeros(2)}}, {"sums": {"": torch.ones(2)}})


HISTORY = {
    "deleted": (lambda path: path.unlink(), "1, 2"),
    "emptied": (lambda path: path.write_text(""), "1, 2"),
    "cut": (lambda path: path.write_text(path.read_text()[:-20]), ""),
    "cut to half": (lambda path: path.write_text(path.read_text().splitlines()[0] + "\n"), "2"),
}


@pytest.mark.parametrize(("damage", "missing"), HISTORY.values(), ids=HISTORY)
def test_a_history_that_lost_epochs_says_which(tmp_path, capsys, damage, missing, say, history, without_times):
    """The last record comes from the checkpoint."""
    out = tmp_path / "run"
    assert say(*QUICK, "--n_epochs", 3, "--out", out) == 0
    whole = history(out)
    damage(out / "history.jsonl")
    capsys.readouterr()
    assert say("--resume", out, "--n_epochs", 4) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "lacks epoch" in line]
    assert [line.split("lacks epoch ")[1].split(":")[0] for line in said] == ([missing] if missing else [])
    there = [epoch for epoch in (1, 2, 3, 4) if str(epoch) not in missing.split(", ")]
    assert [record["epoch"] for record in history(out)] == there
    assert [r for r in without_times(history(out)) if r["epoch"] == 3] == without_times(whole)[2:]


def test_a_history_with_an_epoch_twice_is_damaged(tmp_path, capsys, say):
    out = tmp_path / "run"
    assert say(*QUICK, "--n_epochs", 2, "--out", out) == 0
    lines = (out / "history.jsonl").read_text().splitlines()
    (out / "history.jsonl").write_text("\n".join([lines[0], lines[0], lines[1]]) + "\n")
    assert say("--resume", out, "--n_epochs", 3) == 2
    assert "is damaged in line 2; repair it or move it away" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("end", ["| true", ">&-", "2>&-", ">&- 2>&-", "> /dev/full", "2> /dev/full"])
def test_output_that_cannot_be_written_does_not_end_the_training(tmp_path, end, history):
    command = " ".join(
        map(str, [sys.executable, ROOT / "train.py", *QUICK, "--n_epochs", 3, "--out", tmp_path / "run"])
    )
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command} {end}"], timeout=120, check=False)
    assert done.returncode == 0
    assert len(history(tmp_path / "run")) == 3
    assert "test_accuracy" in checkpoint.read(tmp_path / "run" / "checkpoint.safetensors")[1]["metrics"]


def test_a_full_disk_is_named_and_the_result_is_printed(tmp_path, monkeypatch, capsys, say):
    out = tmp_path / "run"
    original = os.fsync

    def full(handle):
        if "test_accuracy" in Path(f"/proc/self/fd/{handle}").resolve().read_bytes()[:20_000].decode(errors="ignore"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(handle)

    monkeypatch.setattr(os, "fsync", full)
    assert say(*QUICK, "--n_epochs", 1, "--out", out) == 2
    said = capsys.readouterr()
    assert "test accuracy" in said.out
    sentence = f"{out / 'checkpoint.safetensors'} cannot be written (No space left on device); make room, or choose"
    assert sentence in said.err
    assert checkpoint.read(out / "checkpoint.safetensors")[1]["metrics"]["epoch"] == 1
    assert not list(out.glob(".*.unfinished"))


def test_what_a_killed_saver_left_is_cleared(tmp_path, say):
    out = tmp_path / "run"
    assert say(*QUICK, "--n_epochs", 1, "--out", out) == 0
    (out / f".checkpoint.safetensors.00ff{checkpoint.UNFINISHED}").write_bytes(b"half")
    assert say("--resume", out, "--n_epochs", 2) == 0
    assert sorted(path.name for path in out.iterdir()) == ["checkpoint.safetensors", "history.jsonl"]


def test_too_many_threads_and_a_folder_that_is_not_utf8(tmp_path, monkeypatch, capsys, say):
    monkeypatch.chdir(tmp_path)
    assert say(*QUICK[:-2], "--num_threads", 100_000, "--out", "run") == 2
    assert "--num_threads is 100000; choose from 1 to" in capsys.readouterr().err
    assert say(*QUICK, "--n_epochs", 1, "--out", os.fsdecode(b"r\xff")) == 2
    assert "is not UTF-8" in capsys.readouterr().err


def test_a_history_that_cannot_be_written_is_named(tmp_path, monkeypatch, capsys, say):
    out = tmp_path / "run"
    original = os.fsync

    def full(handle):
        if Path(f"/proc/self/fd/{handle}").resolve().name == "history.jsonl":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(handle)

    monkeypatch.setattr(os, "fsync", full)
    assert say(*QUICK, "--n_epochs", 1, "--out", out) == 2
    sentence = f"{out / 'history.jsonl'} cannot be written (No space left on device); make room, or choose another"
    assert sentence in capsys.readouterr().err
