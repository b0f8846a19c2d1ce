"""Checkpoints: whole, ready in one call, and a clear sentence for every file that is not one."""

import copy
import errno
import json
import struct

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from mixer import MLPMixer, checkpoint, to_convolution

ABOUT = dict(
    data_set="small", mean=[0.3], std=[0.25], class_names=["rot", "grün", "</script>"], metrics={"accuracy": 0.5}
)


@pytest.fixture
def saved(tmp_path, small_model):
    path = tmp_path / "run" / "model.safetensors"
    checkpoint.save(path, small_model(), ABOUT, {"optimiser.0.step": torch.tensor(3.0)})
    return path


def test_one_call_gives_a_ready_model(saved, small_model, small_data):
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
def test_every_configuration_comes_back(tmp_path, changes, small_model):
    model = small_model(**changes)
    checkpoint.save(tmp_path / "m.safetensors", model)
    again, _ = checkpoint.load(tmp_path / "m.safetensors")
    assert again.config == model.config
    assert repr(again) == repr(model)


def test_half_precision_is_read_as_float32(tmp_path, small_model):
    checkpoint.save(tmp_path / "m.safetensors", small_model().half())
    model, _ = checkpoint.load(tmp_path / "m.safetensors")
    assert next(model.parameters()).dtype == torch.float32
    assert torch.equal(model.per_patch.linear.weight, small_model().per_patch.linear.weight.half().float())


def test_extra_tensors_come_back(saved, small_model):
    tensors, _ = checkpoint.read(saved)
    assert tensors["optimiser.0.step"] == 3
    checkpoint.save(saved, small_model(), extra={"one": torch.arange(4.0)[::2][:1]})  # with a stride of 2
    assert checkpoint.read(saved)[0]["one"].tolist() == [0]


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        checkpoint.load(tmp_path / "none.safetensors")
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        checkpoint.load(tmp_path)


def test_a_path_that_cannot_be_read_or_written_is_named_with_the_reason(saved, monkeypatch, small_model):
    for path, reason in (
        (saved / "m", "Not a directory|File exists"),
        (saved.with_name(250 * "m"), "File name too long"),
    ):
        with pytest.raises(OSError, match=rf"^{path} cannot be written \(({reason})\); make room"):
            checkpoint.save(path, small_model())
    with pytest.raises(ValueError, match=r"^the path '\.' names no file; give one"):
        checkpoint.save("", small_model())

    def deny(path, mode):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(type(saved), "open", deny)
    with pytest.raises(OSError, match=r"safetensors cannot be read \(Permission denied\); make it readable"):
        checkpoint.load(saved)


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


def rewritten(path, change):
    """The file of a checkpoint with another header, and the digest that fits it."""
    tensors, metadata = checkpoint.read(path)
    header = change(metadata) if callable(change) else change
    header = header if isinstance(header, str) else json.dumps(header)
    about = {"format": checkpoint.FORMAT, "mixer": header, "sha256": checkpoint._digest(tensors, header)}
    save_file(tensors, path, about)
    return path


def refused(path, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        checkpoint.load(path)
    assert len(str(error.value)) < 400
    assert len(str(error.value).splitlines()) == 1


HOSTILE = [
    {"n_channel": 10**9},
    {"n_layers": 10**9},
    {"n_layers": 10_000},
    {"n_layers": 3},
    {"image_size": 10**9 + 7},
    {"image_size": 2**31 - 2},
    {"image_size": [2**30, 2**30], "n_channel": 2**31 - 1, "n_hidden_token": 2**31 - 1},
    {"n_output": 0},
    {"n_output": "many"},
    {"n_output": [3] * 100_000},
    {"norm": ["channels"]},
    {"norm": "channels"},
    {"eps": 10**400},
    {"another": 1},
]


@pytest.mark.parametrize("config", HOSTILE, ids=lambda config: str(config)[:40])
def test_a_header_that_describes_another_model(saved, config):
    """It is refused before anything of its size is made."""
    rewritten(saved, lambda about: about | {"config": about["config"] | config})
    refused(saved, "does not hold the model that its header describes")


def test_a_header_without_a_configuration(saved):
    for config in (None, 7, [], "text", [["n_layers", 1]], {}):
        refused(rewritten(saved, lambda about, c=config: about | {"config": c}), "does not hold the model")
    refused(rewritten(saved, lambda about: {"metrics": {}}), "does not hold the model")


NESTED = '{"config":' + "[" * 100_000
NO_JSON = [
    "",
    "null",
    "7",
    "[1, 2]",
    '"text"',
    "{",
    NESTED,
    "[" * 10**6,
    '{"n": ' + "9" * 5000 + "}",
    "\x00",
    "\ufeff{}",
]


@pytest.mark.parametrize("header", NO_JSON, ids=lambda header: header[:12])
def test_a_header_that_is_no_dictionary(saved, header):
    refused(rewritten(saved, header), "has a header that is not a dictionary in JSON")


def test_odd_metadata_are_kept(saved):
    for options in (None, [], "text"):
        path = rewritten(saved, lambda about, o=options: about | {"options": o})
        assert checkpoint.load(path)[1]["options"] == options


@pytest.mark.parametrize(
    ("name", "tensor", "sentence"),
    [
        ("model.output.linear.bias", torch.zeros(4), r"output.linear.bias is \[4\] and should be \[3\]"),
        ("model.output.linear.bias", torch.zeros(3, dtype=torch.int64), r"is torch.int64 \[3\] and should be \[3\]"),
        ("model.output.linear.bias", torch.zeros(3, dtype=torch.complex64), r"is torch.complex64 \[3\] and"),
        ("model.output.linear.bias", torch.zeros(3).to(torch.float8_e4m3fn), r"is torch.float8_e4m3fn \[3\] and"),
        ("model.another", torch.zeros(3), r"another is \[3\] and should be left out"),
        ("model", torch.zeros(3), r" is \[3\] and should be left out"),
    ],
)
def test_tensors_that_do_not_fit_the_header(saved, name, tensor, sentence):
    tensors, about = checkpoint.read(saved)
    header = json.dumps(about)
    tensors[name] = tensor
    digest = checkpoint._digest(tensors, header)
    save_file(tensors, saved, {"format": checkpoint.FORMAT, "mixer": header, "sha256": digest})
    refused(saved, sentence)


def test_a_missing_tensor_is_named(saved):
    tensors, about = checkpoint.read(saved)
    del tensors["model.layers.0.channel_mixing.fc2.bias"]
    header = json.dumps(about)
    digest = checkpoint._digest(tensors, header)
    save_file(tensors, saved, {"format": checkpoint.FORMAT, "mixer": header, "sha256": digest})
    refused(saved, r"layers.0.channel_mixing.fc2.bias is missing and should be \[6\]")


@pytest.mark.parametrize("name", ["snapshot.x.weight", "snapshot.5", "snapshot.-1.w", "snapshot." + "9" * 5000 + ".w"])
def test_snapshots_of_no_step(name):
    with pytest.raises(ValueError, match="does not name a weight of a step"):
        checkpoint.snapshots({name: torch.zeros(1)})


def test_an_altered_header_is_noticed(saved):
    content = saved.read_bytes()
    saved.write_bytes(content.replace(b'\\"mean\\": [0.3]', b'\\"mean\\": [0.9]'))
    assert saved.read_bytes() != content
    with pytest.raises(ValueError, match="was damaged or altered"):
        checkpoint.load(saved)


def test_a_failed_write_leaves_the_earlier_file(saved, monkeypatch, small_model):
    before = saved.read_bytes()

    def no_space(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint.os, "fsync", no_space)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(saved, small_model(1), ABOUT)
    assert saved.read_bytes() == before


def test_a_file_is_replaced_in_one_step(saved, small_model):
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


def test_what_could_not_be_loaded_is_not_saved(tmp_path, small_model):
    path = tmp_path / "m.safetensors"
    with pytest.raises(ValueError, match="ConvolutionalMixer cannot be saved or converted, only MLPMixer; see"):
        checkpoint.save(path, to_convolution(small_model()))
    with pytest.raises(ValueError, match=r"or begin with model\."):
        checkpoint.save(path, small_model(), extra={"model.per_patch.linear.weight": torch.zeros(1)})
    for name in ("model", "__metadata__"):
        with pytest.raises(ValueError, match=r"must not be model or __metadata__ or begin with model\."):
            checkpoint.save(path, small_model(), extra={name: torch.zeros(1)})
    for odd in (torch.zeros(1, dtype=torch.complex128), torch.eye(2).to_sparse(), torch.zeros(1, device="meta")):
        with pytest.raises(ValueError, match=r"^the extra tensor x is torch.*; give a dense one of real numbers"):
            checkpoint.save(path, small_model(), extra={"x": odd})
    assert not path.exists()
    checkpoint.save(path, small_model(), {"config": {"n_layers": 7}})  # metadata cannot replace the configuration
    assert checkpoint.load(path)[1]["config"] == small_model().config


def head_of_two(model):
    model.output.linear = nn.Linear(6, 2)


def two_layers(model):
    model.layers = model.layers[:2]


def another_layer(model):
    model.layers.append(copy.deepcopy(model.layers[0]))


def a_sequence_of_layers(model):
    model.layers = nn.Sequential(*model.layers[1:])


def shared_layers(model):
    model.layers[1] = model.layers[0]


@pytest.mark.parametrize("change", [head_of_two, two_layers, another_layer, a_sequence_of_layers, shared_layers])
def test_save_follows_a_changed_model(tmp_path, change, small_model, small_data):
    model = small_model(n_layers=3).eval()
    change(model)
    checkpoint.save(tmp_path / "m.safetensors", model)
    again, about = checkpoint.load(tmp_path / "m.safetensors")
    assert about["config"] == model.config == again.config
    assert (again.config["n_layers"], again.config["n_output"]) == (len(model.layers), model.output.linear.out_features)
    images = small_data().normalise(small_data().test.images)
    assert torch.equal(again(images), model(images))
    torch.testing.assert_close(to_convolution(model)(images), model(images), rtol=1e-4, atol=1e-5)


def replaced(path, part):
    def change(model):
        parent, _, name = path.rpartition(".")
        setattr(model.get_submodule(parent), name, part)

    return change


class Doubled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


Doubled.__qualname__ = "Linear"  # another class of the same name


class OtherMixing(nn.Module):
    def forward(self, x):
        return x


CHANGES = [
    (replaced("output.linear", nn.Linear(5, 3)), r"output.linear is Linear\(in_features=5.* should be .*in_features=6"),
    (replaced("output.linear", nn.Linear(6, 3, bias=False)), "output.linear is .*bias=False.* should be .*bias=True"),
    (replaced("output.linear", nn.Identity()), r"output.linear is Identity\(\) and should be Linear"),
    (
        replaced("output.linear", nn.Sequential(nn.Linear(6, 2))),
        r"output.linear is Sequential\(\) and should be Linear",
    ),
    (replaced("output.linear.weight", nn.Parameter(torch.zeros(2, 6))), r"weight is \[2, 6\] and should be \[3, 6\]"),
    (replaced("output.linear", Doubled(6, 3)), r"is .*test_checkpoint.Linear\(.* and should be Linear\("),
    (replaced("layers.0.forward", abs), r"layers.0 is MixerLayer\(\), but for its forward, and should be MixerLayer"),
    (replaced("layers.0.token_mixing.update", abs), "token_mixing is TokenMixingMLP.*, but for its update, and should"),
    (replaced("forward", abs), "the network is as it was made, but for its forward, and should be as it was made"),
    (replaced("layers", nn.Identity()), r"layers is Identity\(\) and should be ModuleList"),
    (lambda model: delattr(model, "layers"), "layers is missing and should be ModuleList"),
    (lambda model: delattr(model, "output"), "output is missing and should be OutputMLP"),
    (replaced("output", nn.Linear(6, 3)), "output is Linear.* and should be OutputMLP"),
    (replaced("per_patch.linear", nn.Linear(8, 6)), "per_patch.linear is .*in_features=8.* should be .*in_features=4"),
    (replaced("patches.patch_size", 4), "patches is .*patch_size=4.* should be .*patch_size=2"),
    (replaced("layers", nn.ModuleList()), "n_layers is 0"),
    (lambda model: setattr(model, "layers", model.layers[0]), r"layers is MixerLayer\(\) and should be ModuleList"),
    (replaced("layers.0.token_mixing.fc1", nn.Linear(4, 9)), "token_mixing.fc1 is .*out_features=9.* should be"),
    (replaced("layers.0.token_mixing.gelu", nn.ReLU()), r"token_mixing.gelu is ReLU\(\) and should be GELU"),
    (replaced("layers.0.token_mixing.norm.eps", 0.1), "token_mixing.norm is .*eps=0.1.* should be .*eps=1e-05"),
    (
        replaced("layers.0.channel_mixing", OtherMixing()),
        "channel_mixing is .*OtherMixing.* and should be ChannelMixingMLP",
    ),
    (replaced("layers.0.dropout", nn.Dropout(0.5)), "layers.0.dropout is Dropout.* and should be left out"),
    (lambda model: model.register_buffer("mean", torch.zeros(3)), r"mean is \[3\] and should be left out"),
    (lambda model: nn.utils.parametrizations.weight_norm(model.output.linear), "output.linear is Parametrized"),
    (lambda model: model._apply(lambda p: p.to(torch.complex64)), "is torch.complex64"),
    (lambda model: model.to("meta"), "is on the meta device"),
]


@pytest.mark.parametrize(("change", "sentence"), CHANGES, ids=[sentence[:40] for _, sentence in CHANGES])
def test_save_refuses_what_load_could_not_give(saved, change, sentence, small_model):
    before, model = saved.read_bytes(), small_model()
    change(model)
    with pytest.raises(ValueError, match=sentence) as error:
        checkpoint.save(saved, model)
    assert "\n" not in str(error.value)
    assert saved.read_bytes() == before


def test_save_refuses_another_forward_and_metadata_that_are_no_json(saved, small_model):
    class Doubled(MLPMixer):
        def forward(self, image):
            return 2 * super().forward(image)

    wrapped = {"module": nn.DataParallel(small_model()), "_orig_mod": torch.compile(small_model())}
    for name, network in wrapped.items():
        with pytest.raises(ValueError, match=f"cannot be saved or converted, only MLPMixer; give its .{name}$"):
            checkpoint.save(saved, network)
    before = saved.read_bytes()
    with pytest.raises(ValueError, match="Doubled cannot be saved or converted, only MLPMixer"):
        checkpoint.save(saved, Doubled(**small_model().config))
    circle = []
    circle.append(circle)
    for metadata in ({"mean": torch.zeros(3)}, {"mean": circle}, {3: 1, "three": 2}):
        with pytest.raises(ValueError, match="cannot be written as JSON"):
            checkpoint.save(saved, small_model(), metadata)
    assert saved.read_bytes() == before
