"""Checkpoints: whole, ready in one call, and a clear sentence for every file that is not one."""

import errno
import json
import struct

import pytest
import torch
from safetensors.torch import save_file

from mixer import checkpoint, to_convolution
from tests.helpers import small_data, small_model

ABOUT = dict(
    data_set="small", mean=[0.3], std=[0.25], class_names=["rot", "grün", "</script>"], metrics={"accuracy": 0.5}
)


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "run" / "model.safetensors"
    checkpoint.save(path, small_model(), ABOUT, {"optimiser.0.step": torch.tensor(3.0)})
    return path


def test_one_call_gives_a_ready_model(saved):
    original = small_model().eval()
    model, metadata = checkpoint.load(saved)
    assert not model.training
    assert all(p.requires_grad for p in model.parameters())
    images = small_data().normalise(small_data().test.images)
    assert torch.equal(model(images), original(images))
    assert {name: metadata[name] for name in ABOUT} == ABOUT
    assert metadata["config"] == original.config


@pytest.mark.parametrize(
    "changes", [{"image_size": (4, 6)}, {"norm": "channels", "gelu": "tanh", "eps": 1e-6}, {"n_hidden_channel": 9}]
)
def test_every_configuration_comes_back(tmp_path, changes):
    model = small_model(**changes)
    checkpoint.save(tmp_path / "m.safetensors", model)
    again, _ = checkpoint.load(tmp_path / "m.safetensors")
    assert again.config == model.config
    assert repr(again) == repr(model)


def test_half_precision_is_read_as_float32(tmp_path):
    checkpoint.save(tmp_path / "m.safetensors", small_model().half())
    model, _ = checkpoint.load(tmp_path / "m.safetensors")
    assert next(model.parameters()).dtype == torch.float32
    assert torch.equal(model.per_patch.linear.weight, small_model().per_patch.linear.weight.half().float())


def test_extra_tensors_come_back(saved):
    tensors, _ = checkpoint.read(saved)
    assert tensors["optimiser.0.step"] == 3


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        checkpoint.load(tmp_path / "none.safetensors")
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip", b"\x00" * 64, "Grüße".encode() * 50, b"\xff" * 200])
def test_foreign_bytes(tmp_path, content):
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is truncated or not a safetensors file"):
        checkpoint.load(path)


def test_foreign_safetensors(tmp_path):
    save_file({"x": torch.zeros(3)}, tmp_path / "m.safetensors")
    with pytest.raises(ValueError, match="is a safetensors file, but not a checkpoint of this package"):
        checkpoint.load(tmp_path / "m.safetensors")


def test_a_header_that_describes_another_model(tmp_path, monkeypatch):
    model = small_model()
    model.config["n_channel"] = 10**9  # must be refused before anything of that size is made
    checkpoint.save(tmp_path / "m.safetensors", model)
    with pytest.raises(ValueError, match="does not hold the model that its header describes"):
        checkpoint.load(tmp_path / "m.safetensors")


def test_an_altered_header_is_noticed(saved):
    content = saved.read_bytes()
    saved.write_bytes(content.replace(b'\\"mean\\": [0.3]', b'\\"mean\\": [0.9]'))
    assert saved.read_bytes() != content
    with pytest.raises(ValueError, match="was damaged or altered"):
        checkpoint.load(saved)


def test_a_failed_write_leaves_the_earlier_file(saved, monkeypatch):
    before = saved.read_bytes()

    def no_space(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(saved, small_model(1), ABOUT)
    assert saved.read_bytes() == before


def test_a_file_is_replaced_in_one_step(saved):
    before = saved.read_bytes()
    with saved.open("rb") as reader:  # whoever has the old file open keeps it whole
        checkpoint.save(saved, small_model(1), ABOUT)
        assert reader.read() == before
    assert saved.read_bytes() != before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_the_header_can_be_read_without_this_package(saved):
    content = saved.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])["__metadata__"]
    assert json.loads(header["mixer"])["class_names"] == ABOUT["class_names"]
    assert len(header["sha256"]) == 64


def test_a_loaded_model_is_independent_of_its_file(saved):
    model, _ = checkpoint.load(saved)
    before = model.per_patch.linear.weight.detach().clone()
    saved.write_bytes(bytes(saved.stat().st_size))
    assert torch.equal(model.per_patch.linear.weight, before)


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
    path = tmp_path / "m.safetensors"
    with pytest.raises(ValueError, match="a ConvolutionalMixer cannot be saved, only an MLPMixer"):
        checkpoint.save(path, to_convolution(small_model()))
    with pytest.raises(ValueError, match=r"must not begin with model\."):
        checkpoint.save(path, small_model(), extra={"model.per_patch.linear.weight": torch.zeros(1)})
    assert not path.exists()
    checkpoint.save(path, small_model(), {"config": {"n_layers": 7}})  # metadata cannot replace the configuration
    assert checkpoint.load(path)[1]["config"] == small_model().config
