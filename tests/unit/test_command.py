"""`python train.py` as its users meet it: where the process itself matters as a process, else within this one."""

import os
import runpy
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from mixer import MLPMixer, Trainer, checkpoint, evaluate, fit, load_checkpoint, load_data
from mixer.cli import explained
from mixer.cli.folder import append_record
from mixer.devices import choose_precision, join_processes
from mixer.widgets import ConvolutionTwin, MixerFlow, TokenMixingExplorer

ROOT = Path(__file__).parents[2]
QUICK = ["--recipe", "seed", "--n_layers", "1", "--n_channel", "8", "--n_hidden", "8", "--num_threads", "1"]


@pytest.mark.slow
def test_bare_command_learns_the_digits(tmp_path, start, history):
    process = start("--n_epochs", 3, folder=tmp_path)
    stdout, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert "digits: 1,294 training, 144 validation, 359 test images, 10 classes" in stdout
    assert "epoch   3/3" in stdout
    assert "images/s" in stderr  # the bar
    model, metadata = load_checkpoint(tmp_path / "runs" / "digits" / "checkpoint.safetensors")
    digits = load_data("digits")
    assert metadata["data_set"] == "digits"
    assert metadata["mean"] == digits.mean
    assert metadata["command"] == "python train.py --n_epochs 3"
    dtype = choose_precision("auto", torch.device("cpu"))  # as the run had it
    assert metadata["metrics"]["test_accuracy"] == evaluate(model, digits, digits.test, dtype)["accuracy"]
    assert [record["epoch"] for record in history(tmp_path / "runs" / "digits")] == [1, 2, 3]


def test_runs_are_never_overwritten(tmp_path, monkeypatch, capsys, say):
    monkeypatch.chdir(tmp_path)
    for expected in ("digits", "digits-2"):
        assert say("--n_epochs", 1, *QUICK) == 0
        assert (tmp_path / "runs" / expected / "checkpoint.safetensors").is_file()
    before = (tmp_path / "runs" / "digits" / "checkpoint.safetensors").read_bytes()
    capsys.readouterr()
    assert say("--out", "runs/digits", "--n_epochs", 1) == 2
    sentence = "train.py: runs/digits already holds a run; add --resume to continue it, or choose another --out\n"
    assert capsys.readouterr().err == sentence
    assert (tmp_path / "runs" / "digits" / "checkpoint.safetensors").read_bytes() == before


@pytest.mark.slow
def test_an_interrupted_run_resumes_bit_for_bit(tmp_path, say, start, history, weights, without_times):
    options = [*QUICK, "--recipe", "strong", "--batch_size", "16", "--n_epochs", "8"]
    assert say(*options, "--out", tmp_path / "whole") == 0
    process = start(*options, "--out", tmp_path / "parts")
    while process.stdout.readline()[:5] != "epoch":
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "saved; go on with: python train.py --resume" in stdout
    assert say("--resume", tmp_path / "parts") == 0
    assert without_times(history(tmp_path / "parts")) == without_times(history(tmp_path / "whole"))
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.slow
def test_a_killed_run_resumes_bit_for_bit(tmp_path, say, start, history, weights, without_times):
    options = [*QUICK, "--batch_size", "16", "--n_epochs", "6"]
    assert say(*options, "--out", tmp_path / "whole") == 0
    process = start(*options, "--out", tmp_path / "parts")
    for _ in range(4):
        process.stdout.readline()
    process.kill()
    process.communicate()
    with (tmp_path / "parts" / "history.jsonl").open("a") as file:
        file.write('{"epoch": 99, "train_lo')  # as a kill in the middle of a line would leave it
    assert say("--out", tmp_path / "parts", "--resume") == 0
    assert without_times(history(tmp_path / "parts")) == without_times(history(tmp_path / "whole"))
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_finished_run_can_be_continued_for_longer(tmp_path, capsys, say, history, weights):
    assert say(*QUICK, "--n_epochs", 2, "--out", tmp_path / "run") == 0
    assert say("--resume", tmp_path / "run", "--n_epochs", 3) == 0
    assert "epoch   3/3" in capsys.readouterr().out
    assert [record["epoch"] for record in history(tmp_path / "run")] == [1, 2, 3]
    assert say(*QUICK, "--n_epochs", 3, "--out", tmp_path / "whole") == 0
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "run")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


@pytest.mark.slow
@pytest.mark.parametrize("limit", [None, 100], ids=["in memory", "streamed"])
def test_a_folder_of_images(tmp_path, monkeypatch, limit, write_folder, say):
    write_folder(tmp_path / "images", n=20)
    if limit:
        monkeypatch.setattr("mixer.data.MEMORY_LIMIT", limit)
    options = ["--dataset", "folder", "--data_dir", tmp_path / "images", "--image_size", 8, "--out", tmp_path / "run"]
    assert say(*options, "--n_epochs", 15, "--batch_size", 8, *QUICK) == 0
    model, metadata = load_checkpoint(tmp_path / "run" / "checkpoint.safetensors")
    assert metadata["class_names"] == ["ant", "bee"]
    assert model.image_shape == (3, 8, 8)
    assert metadata["metrics"]["test_accuracy"] > 0.9


@pytest.mark.slow
def test_the_module_is_the_same_command(tmp_path):
    command = [sys.executable, "-m", "mixer.train", "--n_epochs", "1", "--out", str(tmp_path / "run"), *QUICK]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, timeout=300, check=False).returncode == 0
    assert (tmp_path / "run" / "checkpoint.safetensors").is_file()


def test_help_reaches_a_terminal_that_knows_ascii_alone():
    command, environment = [sys.executable, "train.py", "--help"], {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "--n_epochs" in done.stdout


def test_help_explains_every_option(capsys, say):
    assert say("--help") == 0
    stdout = capsys.readouterr().out
    options = "patch_size n_layers n_channel n_hidden dataset n_epochs batch_size lr seed recipe device precision"
    for name in [*options.split(), "data_dir", "out", "resume", "num_threads", "image_size"]:
        assert f"--{name}" in stdout
    assert stdout.count("(default") >= 15


BAD = [
    (["--dataset", "imagenet"], "invalid choice: 'imagenet'"),
    (["--patch_size", "0"], "0 is not a whole number of at least 1"),
    (["--patch_size", "3"], "image 8×8 is not divisible into 3×3 patches; choose patch_size 1, 2, 4, 8"),
    (["--n_layers", "two"], "two is not a whole number of at least 1"),
    (["--n_channel", "-4"], "-4 is not a whole number of at least 1"),
    (["--n_train", "0"], "0 is not a whole number of at least 1"),
    (["--n_train", "1295"], "n_train is 1295; choose from 1 to 1,294, the number of training images of digits"),
    (["--optimiser", "lion"], "invalid choice: 'lion'"),
    (["--lr", "-1"], "lr is -1.0; it must be a positive number"),
    (["--lr", "nan"], "lr is nan; it must be a positive number"),
    (["--device", "tpu"], "device 'tpu' is not known"),
    (["--precision", "fp16", "--device", "cpu"], "precision fp16 needs a cuda device"),
    (["--image_size", "16"], "image_size applies to the data set folder alone"),
    (["--dataset", "folder", "--data_dir", "nowhere"], "laid out as train/<class>/"),
    (["--resume", "nowhere"], "nowhere holds no checkpoint.safetensors to resume from"),
    (["--resume"], "--resume needs the folder of the run"),
    (["--n_channel", "3000000000"], "below 2³¹"),
    (["--seed", "-1"], "below 2⁶³"),
    (["--out", "/dev/null/run"], "--out /dev/null/run cannot be made a folder"),
    (["--out", ""], "--out is empty; give it the name of a folder, or leave it out"),
    (["--n_epoch", "3"], "unrecognized arguments"),
    (["7"], "unrecognized arguments: 7"),
    (["--lr", "1e30", "--n_epochs", "1"], "the loss is no longer a number in epoch 1"),
    (["--lr", "1e30", "--n_epochs", "1", "--out", "my run"], "for instance --resume 'my run' --lr 0.003"),
    (["--n_layers", "1000000"], "n_layers is 1,000,000; it must be a whole number of at most 10,000"),
    (
        ["--n_layers", "10000", "--n_channel", "4096"],
        "a model of 7,927,392,522 parameters with 64 images per step needs at least",
    ),
    (["--n_hidden", "2147483647"], "GiB; choose smaller sizes"),
    (["--dataset", "digits", "--batch_size", "9999", "--n_channel", "30000", "--n_hidden", "30000"], "1294 images"),
]


@pytest.mark.parametrize(("options", "sentence"), BAD, ids=[" ".join(options) for options, _ in BAD])
def test_bad_options_get_one_sentence(tmp_path, monkeypatch, capsys, options, sentence, say):
    monkeypatch.chdir(tmp_path)
    assert say(*options) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith("train.py: ")
    assert sentence in last


def test_an_option_that_contradicts_the_run_to_resume(tmp_path, monkeypatch, capsys, say):
    monkeypatch.chdir(tmp_path)
    assert say(*QUICK, "--n_epochs", 1, "--out", "run") == 0
    assert say("--resume", "run", "--n_layers", 2) == 2
    assert "--n_layers is 2, but the run to resume has 1" in capsys.readouterr().err
    assert say("--resume", "run", "--n_layers", 1) == 0


def test_resuming_a_damaged_checkpoint(tmp_path, monkeypatch, capsys, say):
    monkeypatch.chdir(tmp_path)
    assert say(*QUICK, "--n_epochs", 1, "--out", "run") == 0
    path = tmp_path / "run" / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    assert say("--resume", "run") == 2
    assert "is truncated or not a safetensors file" in capsys.readouterr().err


def test_a_folder_that_cannot_be_written(tmp_path, monkeypatch, capsys, say):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    assert say(*QUICK, "--n_epochs", 1, "--out", "file/run") == 2
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith("train.py: ")


@pytest.mark.parametrize("what", ["a file", "a link to nowhere"])
def test_runs_that_is_no_folder_is_said(tmp_path, monkeypatch, capsys, what, say):
    monkeypatch.chdir(tmp_path)
    Path("runs").write_text("") if what == "a file" else Path("runs").symlink_to("nowhere")
    assert say(*QUICK, "--n_epochs", 1) == 2
    sentence = "train.py: runs cannot be made a folder (File exists); choose another with --out\n"
    assert capsys.readouterr().err.endswith(sentence)


def test_a_folder_in_which_nothing_can_be_locked_is_said(tmp_path, monkeypatch, capsys, say):
    monkeypatch.chdir(tmp_path)
    Path("run", ".lock").mkdir(parents=True)
    assert say(*QUICK, "--n_epochs", 1, "--out", "run") == 2
    sentence = "train.py: run/.lock cannot be written (Is a directory); make room, or choose another folder\n"
    assert capsys.readouterr().err == sentence


@pytest.mark.slow
def test_interrupted_before_training_begins(tmp_path, start):
    process = start("--out", tmp_path / "run", python=["-X", "importtime"])
    while "numpy" not in process.stderr.readline():  # torch is being imported
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode in (130, -signal.SIGINT)
    assert not (tmp_path / "run" / "history.jsonl").exists()


@pytest.mark.slow
def test_two_runs_started_at_once_get_a_folder_each(tmp_path, start):
    processes = [start(*QUICK, "--n_epochs", 1, "--seed", seed, folder=tmp_path) for seed in (1, 2)]
    for process in processes:
        process.communicate(timeout=120)
    commands = {checkpoint.read(f / "checkpoint.safetensors")[1]["command"] for f in (tmp_path / "runs").iterdir()}
    assert len(commands) == 2


def test_what_a_resumed_run_refuses(tmp_path, monkeypatch, capsys, write_folder, say):
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "images", n=20)
    options = ["--dataset", "folder", "--data_dir", "images", "--image_size", 8, *QUICK]
    assert say(*options, "--n_epochs", 2, "--out", "run") == 0
    before = (tmp_path / "run" / "history.jsonl").read_text()

    def refused(sentence, *more):
        assert say("--resume", "run", *more) == 2
        assert sentence in capsys.readouterr().err
        assert (tmp_path / "run" / "history.jsonl").read_text() == before

    refused("--lr is 0.5, but the run to resume has 0.001", "--lr", 0.5)
    refused("--batch_size is 2, but the run to resume has 256", "--batch_size", 2)
    refused("--n_epochs is 1, but the run has come to epoch 2 already", "--n_epochs", 1)
    refused("goes on in its own folder; leave out --out other", "--out", "other")
    write_folder(tmp_path / "others", n=21)
    refused("are not those that the run in run began with", "--data_dir", "others")
    before = "garbage\n" + before
    (tmp_path / "run" / "history.jsonl").write_text(before)
    refused("history.jsonl is damaged in line 1; repair it or move it away", "--n_epochs", 3)


def test_images_that_change_during_a_run_are_not_those_that_it_began_with(
    tmp_path, monkeypatch, capsys, write_folder, say
):
    monkeypatch.setattr("mixer.data.MEMORY_LIMIT", 100)  # so that every epoch reads the files
    write_folder(tmp_path / "images", n=20)
    one = tmp_path / "images" / "test" / "ant" / "0.png"  # the mean and the deviation are those of training images

    def alter(*record):
        append_record(*record)
        Image.new("RGB", (8, 8), "white").save(one)

    monkeypatch.setattr("mixer.cli.run.append_record", alter)
    options = ["--dataset", "folder", "--data_dir", tmp_path / "images", "--image_size", 8, *QUICK]
    assert say(*options, "--n_epochs", 2, "--out", tmp_path / "run") == 0
    assert say("--resume", tmp_path / "run", "--n_epochs", 3) == 2
    assert "are not those that the run in" in capsys.readouterr().err


def test_a_model_without_a_run_cannot_be_resumed(tmp_path, monkeypatch, capsys, small_model, say):
    monkeypatch.chdir(tmp_path)
    checkpoint.save(tmp_path / "run" / "checkpoint.safetensors", small_model())
    assert say("--resume", "run") == 2
    assert "holds a model but no run; it can be loaded, not resumed" in capsys.readouterr().err


def test_a_history_without_a_checkpoint_is_not_overwritten(tmp_path, monkeypatch, capsys, say):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "history.jsonl").write_text('{"epoch": 1}\n')
    assert say(*QUICK, "--out", "run") == 2
    assert "already holds a run" in capsys.readouterr().err
    assert say(*QUICK, "--out", "run", "--resume") == 2
    assert "run holds history.jsonl but no checkpoint.safetensors; put that back" in capsys.readouterr().err
    assert (tmp_path / "run" / "history.jsonl").read_text() == '{"epoch": 1}\n'


def test_an_evaluation_that_fails_loses_no_epoch(tmp_path, monkeypatch, capsys, say):
    monkeypatch.chdir(tmp_path)

    def fail(*_):
        raise OSError("the test images cannot be read")

    monkeypatch.setattr("mixer.cli.run.evaluate", fail)
    assert say(*QUICK, "--n_epochs", 1, "--out", "run") == 2
    assert checkpoint.read(tmp_path / "run" / "checkpoint.safetensors")[1]["metrics"]["epoch"] == 1


@pytest.mark.slow
def test_a_terminal_that_cannot_write_every_letter(tmp_path):
    command = [sys.executable, ROOT / "train.py", *QUICK, "--n_epochs", "1", "--out", tmp_path / "Größe → 8"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, env=environment, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path, say, history, weights):
    options = ["--recipe", "strong", "--n_epochs", "2", "--num_threads", "1"]
    assert say(*options, "--out", tmp_path / "one") == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launch, ROOT / "train.py", *options, "--out", tmp_path / "two"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "processes: 2" in done.stdout
    one, two = (torch.cat([w.flatten() for w in weights(tmp_path / run).values()]) for run in ("one", "two"))
    assert (two - one).norm() < 0.01 * one.norm()  # measured 0.0016, while the run itself moves the weights by 0.44
    for one, two in zip(history(tmp_path / "one"), history(tmp_path / "two"), strict=True):
        assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-3)
        assert two["train_accuracy"] == pytest.approx(one["train_accuracy"], abs=0.005)


def test_tensorboard_gets_the_history(tmp_path, say, history):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "run"
    assert say(*QUICK, "--n_epochs", 2, "--tensorboard", "--out", out) == 0
    events = EventAccumulator(str(out)).Reload()
    for name in ("train_loss", "validation_accuracy", "lr"):
        expected = [(record["epoch"], pytest.approx(record[name])) for record in history(out)]
        assert [(event.step, event.value) for event in events.Scalars(name)] == expected


def test_every_run_keeps_snapshots_also_when_it_is_resumed(tmp_path, say):
    out = tmp_path / "run"
    assert say(*QUICK, "--n_epochs", 4, "--out", out) == 0
    tensors, about = checkpoint.read(out / "checkpoint.safetensors")
    snapshots = checkpoint.snapshots(tensors)
    assert list(snapshots) == [round(about["step"] * (i / 11) ** 2) for i in range(12)]
    model, _ = load_checkpoint(out / "checkpoint.safetensors")
    names = [name for name in model.state_dict() if "token_mixing.fc" in name]
    torch.manual_seed(1)
    first = MLPMixer(**model.config).state_dict()
    for name in names:
        assert torch.equal(snapshots[0][name], first[name].half())
        assert torch.equal(snapshots[about["step"]][name], model.state_dict()[name].half())
    assert sorted(snapshots[0]) == sorted(names)
    assert say("--resume", out, "--n_epochs", 5) == 0
    later = checkpoint.snapshots(checkpoint.read(out / "checkpoint.safetensors")[0])
    assert set(snapshots) < set(later)


def test_a_finished_run_that_is_resumed_keeps_what_it_was_made_with(tmp_path, say):
    out = tmp_path / "run"

    def threads():
        return load_checkpoint(out / "checkpoint.safetensors")[1]["hardware"].partition("threads: ")[2][0]

    assert say(*QUICK, "--n_epochs", 1, "--out", out) == 0
    assert say("--resume", out, "--num_threads", 2) == 0
    assert threads() == "1"
    assert say("--resume", out, "--num_threads", 2, "--n_epochs", 2) == 0
    assert threads() == "2"


def test_shuffled_pixels_and_hidden_sizes_are_options(tmp_path, capsys, say):
    sizes = ["--n_hidden_token", 3, "--n_hidden_channel", 5]
    for shuffle in ("global", "patches"):
        out = tmp_path / shuffle
        assert say(*QUICK, *sizes, "--n_epochs", 1, "--precision", "fp32", "--shuffle", shuffle, "--out", out) == 0
        model, about = load_checkpoint(out / "checkpoint.safetensors")
        assert (model.config["n_hidden_token"], model.config["n_hidden_channel"]) == (3, 5)
        images = load_data("digits").shuffled(shuffle, 2)
        assert about["metrics"]["test_accuracy"] == evaluate(model, images, images.test)["accuracy"]
    assert say("--resume", out, "--shuffle", "none") == 2
    assert "--shuffle is none, but the run to resume has patches" in capsys.readouterr().err


def test_few_images_and_sgd_are_options(tmp_path, capsys, say, history, weights, without_times):
    """The command learns what `fit` learns, and a run that is resumed keeps to its images and its optimiser."""
    few = ["--n_train", 100, "--optimiser", "sgd", "--lr", 0.5, "--precision", "fp32"]
    for name, n_epochs in (("whole", 3), ("parts", 2)):
        assert say(*QUICK, *few, "--n_epochs", n_epochs, "--out", tmp_path / name) == 0
    assert "digits: 100 training, 144 validation" in capsys.readouterr().out
    assert say("--resume", tmp_path / "parts", "--n_epochs", 3) == 0
    assert without_times(history(tmp_path / "parts")) == without_times(history(tmp_path / "whole"))
    images = load_data("digits").first(100)
    torch.manual_seed(1)
    model = MLPMixer(n_layers=1, n_channel=8, n_hidden=8, n_output=10, image_size=8, patch_size=2, n_image_channel=1)
    recipe = dict(n_epochs=3, batch_size=64, lr=0.5, optimiser="sgd")
    assert without_times(fit(model, images, precision="fp32", **recipe)) == without_times(history(tmp_path / "whole"))
    for options, words in ((("--optimiser", "adam"), "has sgd"), (("--n_train", 90), "has 100")):
        assert say("--resume", tmp_path / "parts", *options) == 2
        assert f"but the run to resume {words}" in capsys.readouterr().err


def test_figures_read_what_the_command_says_of_its_pixels(tmp_path, say):
    """A run on shuffled pixels, and the same file as earlier versions wrote it: two figures refuse it, one shows it."""
    images = load_data("digits")
    for shuffle in ("global", "patches"):
        new, old = (tmp_path / shuffle / name for name in ("checkpoint.safetensors", "old.safetensors"))
        assert say(*QUICK, "--n_epochs", 1, "--shuffle", shuffle, "--out", new.parent) == 0
        model, about = load_checkpoint(new)
        checkpoint.save(old, model, {name: value for name, value in about.items() if name != "shuffle"})
        for path in (new, old):
            with pytest.raises(ValueError, match="was trained on shuffled pixels"):
                MixerFlow(path, images.test.images[:3])
            with pytest.raises(ValueError, match="shuffles pixels"):
                ConvolutionTwin(path, images.test.images[:3])
            shown = TokenMixingExplorer(path, images.test.images[:3]).geometry["models"][0]["pixel_order"]
            assert shown == images.shuffled(shuffle, 2).pixel_order.tolist()


@pytest.mark.slow
@pytest.mark.timeout(900)  # two programs that load torch's compiler: a minute, and five and more beside other work
def test_compile_without_a_compiler_is_said_and_can_be_switched_off(tmp_path, say, weights):
    command = [sys.executable, ROOT / "train.py", *QUICK, "--n_epochs", "1", "--precision", "fp32"]
    bare = {**os.environ, "PATH": str(tmp_path), "CXX": "none", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    options = dict(cwd=tmp_path, env=bare, capture_output=True, text=True, timeout=400)
    done = subprocess.run([*command, "--compile", "--out", "run"], **options)
    assert done.returncode == 2
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("train.py: ")]
    assert sentence.startswith("train.py: torch.compile does not work on this machine (")
    assert sentence.endswith("leave --compile out, or resume with --no-compile") and "Traceback" not in done.stderr
    resumed = subprocess.run([*command, "--resume", "run", "--no-compile"], **options)
    assert resumed.returncode == 0, resumed.stderr
    assert say(*QUICK, "--n_epochs", 1, "--precision", "fp32", "--out", tmp_path / "plain") == 0
    plain, late = weights(tmp_path / "plain"), weights(tmp_path / "run")
    assert all(torch.equal(plain[name], late[name]) for name in plain)


def test_tensorboard_that_is_gone_can_be_switched_off(tmp_path, monkeypatch, capsys, say):
    assert say(*QUICK, "--n_epochs", 1, "--tensorboard", "--out", tmp_path / "run") == 0
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)  # as if it were not installed
    assert say("--resume", tmp_path / "run", "--n_epochs", 2) == 2
    assert "install it (pip install tensorboard), or --no-tensorboard" in capsys.readouterr().err
    assert say("--resume", tmp_path / "run", "--n_epochs", 2, "--no-tensorboard") == 0


def test_what_only_texts_of_torch_say_is_explained():
    windows = (
        "DefaultCPUAllocator: not enough memory: you tried to allocate 911360 bytes."  # c10/core/impl/alloc_cpu.cpp
    )
    for text in (windows, "MPS backend out of memory (MPS allocated: 17 GB)"):
        assert explained(RuntimeError(text)).startswith("there is not enough memory")
    new_python = RuntimeError("torch.compile is not supported on Python 3.14+")
    assert explained(new_python).endswith("leave --compile out, or resume with --no-compile")
    assert explained(RuntimeError("an illegal memory access was encountered")) is None


def test_affine_for_photographs_is_refused(tmp_path, capsys, write_folder, say):
    write_folder(tmp_path / "images")
    options = ["--dataset", "folder", "--data_dir", tmp_path / "images", "--image_size", 8, *QUICK, "--n_epochs", 1]
    assert say(*options, "--affine", 0.5, "--out", tmp_path / "run") == 2
    assert "--affine turns digits, and photographs are cropped and mirrored in its place" in capsys.readouterr().err
    assert say(*options, "--recipe", "strong", "--out", tmp_path / "run") == 0


def test_a_run_keeps_the_device_that_was_asked_for(tmp_path, monkeypatch, say):
    monkeypatch.setattr("mixer.cli.run.join_processes", lambda device: "cpu:0")  # as torchrun names one of several
    assert say(*QUICK, "--n_epochs", 1, "--out", tmp_path / "run") == 0
    about = load_checkpoint(tmp_path / "run" / "checkpoint.safetensors")[1]
    assert about["options"]["device"] == "auto"


def test_only_the_process_that_knows_the_folder_advises_to_resume(tmp_path, monkeypatch, capsys, say):
    monkeypatch.chdir(tmp_path)
    diverging = [*QUICK, "--recipe", "seed", "--optimiser", "sgd", "--lr", 1e30]
    assert say(*diverging) == 2
    assert "--resume runs/digits --lr" in capsys.readouterr().err
    monkeypatch.setenv("RANK", "1")
    assert say(*diverging) == 2
    said = capsys.readouterr().err
    assert "the loss is no longer a number" in said and "resume" not in said


def test_several_processes_train_where_they_can(monkeypatch):
    began = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.distributed, "init_process_group", began.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: False)
    with pytest.raises(ValueError, match="several processes cannot train on cuda here; choose cpu"):
        join_processes("cuda")
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: True)
    assert join_processes("cuda") == "cuda:1"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    with pytest.raises(ValueError, match="several processes cannot train on mps here; choose cpu"):
        join_processes("mps")
    assert join_processes("auto") == "cpu"
    assert began == ["nccl", "gloo"]


@pytest.mark.parametrize("was", [signal.SIG_IGN, signal.default_int_handler])
def test_the_program_sets_ctrl_c_only_where_it_is_the_program(monkeypatch, was):
    monkeypatch.setattr(sys, "argv", ["train.py", "--help"])
    before = signal.signal(signal.SIGINT, was)
    try:
        runpy.run_path(ROOT / "train.py", run_name="__mp_main__")  # as a worker that is not forked does
        assert signal.getsignal(signal.SIGINT) == was
        with pytest.raises(SystemExit):
            runpy.run_path(ROOT / "train.py", run_name="__main__")
        assert (signal.getsignal(signal.SIGINT) == signal.SIG_IGN) == (was == signal.SIG_IGN)
    finally:
        signal.signal(signal.SIGINT, before)


def test_full_memory_of_a_cpu_is_one_sentence_and_another_error_stays_one(tmp_path, monkeypatch, capsys, say):
    options = *QUICK, "--n_epochs", 1, "--out", tmp_path / "run"
    monkeypatch.setattr(Trainer, "train_step", lambda *_: torch.empty(2**52))
    assert say(*options) == 2
    assert "there is not enough memory for these sizes; choose smaller ones" in capsys.readouterr().err
    monkeypatch.setattr(Trainer, "train_step", lambda *_: torch.ones(2) @ torch.ones(3))
    with pytest.raises(RuntimeError, match="size"):
        say("--resume", tmp_path / "run")
