"""Official weights: the names of timm and of the .npz files, on generated weights, with equal logits."""

import tracemalloc
import zipfile

import numpy as np
import pytest
import timm
import torch
from timm.models.mlp_mixer import MlpMixer
from torch import nn

from mixer import MLPMixer
from mixer.pretrained import from_official, from_timm

PUBLISHED = {  # n_channel, patch_size, as in table 1 of the paper
    "mixer_s32_224": (512, 32),
    "mixer_s16_224": (512, 16),
    "mixer_b32_224": (768, 32),
    "mixer_b16_224": (768, 16),
}


def generated(name="mixer_s32_224"):
    """One of timm's Mixers, two blocks deep, with random numbers in every parameter."""
    torch.manual_seed(0)
    n_channel, patch_size = PUBLISHED[name]
    model = MlpMixer(num_classes=10, patch_size=patch_size, num_blocks=2, embed_dim=n_channel).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p) * 0.02 + (p.dim() == 1) * 0.1)
    return model


@pytest.mark.parametrize("name", PUBLISHED)
def test_parity_with_timm_of_each_published_size(name):
    theirs = generated(name)
    ours = from_timm(theirs.state_dict())
    n_channel, patch_size = PUBLISHED[name]
    assert (ours.config["n_channel"], ours.config["patch_size"]) == (n_channel, patch_size)
    assert (ours.config["n_hidden_token"], ours.config["n_hidden_channel"]) == (n_channel // 2, n_channel * 4)
    assert ours.image_shape == (3, 224, 224)
    assert not ours.training
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        assert (ours(images) - theirs(images)).abs().max() < 1e-5


def test_an_official_file_gives_the_same_model(tmp_path, as_official):
    theirs = generated()
    np.savez(tmp_path / "mixer.npz", **as_official(theirs))
    ours = from_official(tmp_path / "mixer.npz")
    assert ours.config["gelu"] == "tanh"
    assert ours.config["eps"] == 1e-6
    same = from_timm(theirs.state_dict(), gelu="tanh")
    for name, p in same.state_dict().items():
        assert torch.equal(ours.state_dict()[name], p), name


def test_names_of_the_official_file_are_those_of_its_code(as_official):
    names = set(as_official(generated()))
    assert {
        "stem/kernel",
        "MixerBlock_1/LayerNorm_0/scale",
        "MixerBlock_0/token_mixing/Dense_0/kernel",
        "MixerBlock_0/channel_mixing/Dense_1/bias",
        "pre_head_layer_norm/scale",
        "head/kernel",
    } <= names


def refused(weights, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        from_timm(weights)
    assert "\n" not in str(error.value)


def test_what_does_not_fit_is_refused_with_a_sentence():
    weights = generated().state_dict()
    refused({}, "these are not the weights of a Mixer: per_patch.linear.weight is missing")
    refused(MLPMixer(1, 4, 4, 2, 4, 2, 1).state_dict(), "is missing|not the weights of a Mixer")
    refused(timm.create_model("resnet10t").state_dict(), "these are not the weights of a Mixer")
    refused({n: t for n, t in weights.items() if n != "blocks.1.norm2.bias"}, "channel_mixing.norm.bias")
    refused(
        {**weights, "blocks.0.mlp_tokens.fc1.weight": torch.zeros(256, 48)},
        "with square images: 48 patches of 32×32; give image_size",
    )
    refused({**weights, "extra": torch.zeros(1)}, "extra")


def test_files_that_are_not_official_weights(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        from_official(tmp_path / "none.npz")
    path = tmp_path / "bad.npz"
    for content in (b"", b"not an archive", b"PK\x03\x04" + b"\x00" * 50):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"is damaged or not an \.npz file"):
            from_official(path)
    np.savez(path, stem=np.array([{"an": "object"}], dtype=object))  # would need unpickling
    with pytest.raises(ValueError, match=r"is damaged or not an \.npz file"):
        from_official(path)


def small(**changes):
    """One of timm's Mixers, two small blocks deep, in evaluation mode."""
    torch.manual_seed(0)
    model = MlpMixer(**{**dict(num_classes=3, img_size=16, patch_size=4, num_blocks=2, embed_dim=8), **changes}).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn_like(p) * 0.3)
    return model


def same_logits(ours, theirs, size=(16, 16)):
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), rtol=1e-4, atol=1e-5)


WRAPPED = {
    "DataParallel": lambda model: nn.DataParallel(model).state_dict(),
    "torch.compile": lambda model: torch.compile(model).state_dict(),
    "both": lambda model: torch.compile(nn.DataParallel(nn.DataParallel(model))).state_dict(),
    "compiled blocks": lambda model: compiled_blocks(model).state_dict(),
    "a model of a larger one": lambda model: nn.ModuleDict({"model": model}).state_dict(),
    "a running mean": lambda model: torch.optim.swa_utils.AveragedModel(model).state_dict(),
    "state_dict": lambda model: {"epoch": 3, "state_dict": model.state_dict(), "optimizer": {"state": {}}},
    "model": lambda model: {"model": nn.DataParallel(model).state_dict(), "args": None},
    "nested": lambda model: {"model": {"state_dict": model.state_dict()}},
    "the running mean before the rest": lambda model: {
        "state_dict": {"nothing": torch.zeros(1)},
        "state_dict_ema": model.state_dict(),
    },
    "model_ema": lambda model: {"model": {"nothing": torch.zeros(1)}, "model_ema": model.state_dict()},
    "half precision": lambda model: {name: t.double() for name, t in model.state_dict().items()},
    "parameters": lambda model: dict(model.named_parameters()),
}


def compiled_blocks(model):
    model.blocks = nn.Sequential(*[torch.compile(block) for block in model.blocks])
    return model


@pytest.mark.parametrize("wrap", WRAPPED.values(), ids=WRAPPED)
def test_what_wraps_the_weights_is_taken_off(wrap):
    same_logits(from_timm(wrap(small())), small())


def test_a_fresh_head_for_other_classes():
    """Zeros, so that every class has the same score at first, and gradients that reach it."""
    for weights in (small().state_dict(), small(num_classes=0).state_dict()):
        model = from_timm(weights, n_output=np.int64(5))
        assert model.config["n_output"] == 5
        images = torch.randn(2, 3, 16, 16)
        assert torch.equal(model(images), torch.zeros(2, 5))
        model(images).square().sum().add(model(images).sum()).backward()
        assert model.output.linear.weight.grad.abs().sum() > 0
        kept = {**weights, "head.weight": torch.zeros(5, 8), "head.bias": torch.zeros(5)}
        for name, p in from_timm(kept).state_dict().items():
            assert torch.equal(p, model.state_dict()[name])
    refused(
        small(num_classes=0).state_dict(),
        "these weights have no head; give n_output, the number of classes, for a fresh one",
    )
    for n_output in (0, 2.5, True):
        with pytest.raises(ValueError, match=f"^n_output is {n_output}; it must be a whole number"):
            from_timm(small().state_dict(), n_output=n_output)
    bias_only = {name: t for name, t in small().state_dict().items() if name != "head.weight"}
    refused(bias_only, "output.linear.weight is missing")


def test_images_that_are_not_square():
    theirs = small(img_size=(8, 32))
    with pytest.raises(ValueError, match="16 patches of 4×4 pixels"):
        from_timm(theirs.state_dict(), image_size=(8, 28))
    ours = from_timm(theirs.state_dict(), image_size=(8, 32))
    assert ours.grid == (2, 8)
    same_logits(ours, theirs, (8, 32))
    assert from_timm(theirs.state_dict()).grid == (4, 4)  # as documented: a square, unless one says otherwise
    wide = small(img_size=(8, 24))
    refused(wide.state_dict(), "with square images: 12 patches of 4×4; give image_size")
    same_logits(from_timm(wide.state_dict(), image_size=[8, 24]), wide, (8, 24))
    for image_size, sentence in (((8, 23), "not divisible"), ("8", "image_size is '8'"), (16, "does not hold the 12")):
        with pytest.raises(ValueError, match=sentence):
            from_timm(wide.state_dict(), image_size=image_size)


def test_the_true_cause_is_named():
    weights = small().state_dict()
    refused(small(), "these are not the weights of a Mixer .MlpMixer.; give tensors by name")
    refused([1, 2], "of a Mixer .list.; give tensors")
    refused({"epoch": 3, "lr": 0.1}, "of a Mixer .epoch, lr.; give tensors by name")
    refused({"state_dict": {}}, "per_patch.linear.weight is missing")
    refused({**weights, "module.head.weight": weights["head.weight"]}, "several of these weights have one name")
    refused(small().to("meta").state_dict(), "on the meta device")
    refused({**weights, "stem.proj.weight": torch.zeros(8, 48)}, r"is \[8, 48\] and should have 4 axes")
    refused({**weights, "stem.proj.weight": torch.zeros(8, 3, 4, 5)}, r"is \[8, 60\] and should be \[8, 48\]")
    refused({**weights, "head.bias": torch.zeros(3, dtype=torch.int64)}, r"is torch.int64 \[3\] and should be \[3\]")
    refused({**weights, "blocks.": torch.zeros(1)}, "layers. is|layers.2")
    refused({**weights, 7: torch.zeros(1)}, "7 is")
    refused(timm.create_model("gmixer_12_224", pretrained=False).state_dict(), "these are not the weights of a Mixer")
    many = {f"blocks.{i}.norm1.weight": torch.zeros(8) for i in range(20_000)}
    refused({**weights, **many}, "n_layers is 20,000; it must be a whole number of at most 10,000")
    refused({**weights, **dict([*many.items()][:9_000])}, "9,000 layers of")


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_official_files_in_other_forms(tmp_path, as_official):
    theirs, path = small(), tmp_path / "mixer.npz"
    arrays = as_official(theirs)
    expected = from_official(saved(path, **arrays))
    inner = {f"opt/target/{name}": array for name, array in arrays.items()}
    state = {f"opt/state/param_states/{name}/momentum": array for name, array in arrays.items()}
    pairs = [
        (inner | state | {"opt/state/step": np.array(3), "extra/rng": np.zeros(2, np.uint32)}, 0),
        ({name: array.astype(">f4") for name, array in arrays.items()}, 0),
        ({name: array.astype(np.float64) for name, array in arrays.items()}, 0),
        ({name: np.asfortranarray(array) for name, array in arrays.items()}, 0),
        ({name: array.astype(np.float16) for name, array in arrays.items()}, 1e-3),
        ({name: as_bfloat16(array) for name, array in arrays.items()}, 1e-2),
    ]
    for changed, tolerance in pairs:
        ours = from_official(saved(path, **changed))
        for name, p in expected.state_dict().items():
            torch.testing.assert_close(ours.state_dict()[name], p, rtol=tolerance, atol=tolerance)
    headless = {name: array for name, array in arrays.items() if not name.startswith("head")}
    with pytest.raises(ValueError, match="these weights have no head; give n_output"):
        from_official(saved(path, **headless))
    assert from_official(saved(path, **headless), n_output=4).config["n_output"] == 4
    wide = small(img_size=(8, 24))
    assert from_official(saved(path, **as_official(wide)), image_size=(8, 24)).grid == (2, 6)
    np.savez_compressed(path, **arrays)
    assert from_official(path).config == expected.config


def as_bfloat16(array):
    """As a bfloat16 array comes back from a file: numbers of two bytes of a type that NumPy does not know."""
    return torch.tensor(array).bfloat16().view(torch.int16).numpy().view("V2")


def test_an_archive_larger_than_it_looks_is_refused_unread(tmp_path):
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("stem/kernel.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, dict(descr="<f4", fortran_order=False, shape=(2**26,)))
        for _ in range(256):
            file.write(bytes(2**20))
    assert path.stat().st_size < 2**20
    tracemalloc.start()
    with pytest.raises(ValueError, match=r"1 arrays of 268,\d+,\d+ bytes unpacked, more than any Mixer's weights"):
        from_official(path)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(20_000):
            archive.writestr(f"MixerBlock_{i}/LayerNorm_0/scale.npy", b"")
    with pytest.raises(ValueError, match="20,000 arrays of 0 bytes unpacked, more than any Mixer's weights"):
        from_official(path)


def test_damaged_archives_are_refused_in_one_sentence(tmp_path, as_official):
    path = tmp_path / "damaged.npz"
    content = bytearray(saved(path, **as_official(small(embed_dim=2))).read_bytes())
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': "
    huge = np.random.default_rng(0)
    files = [bytes(content[:n]) for n in (1, 100, len(content) // 2, len(content) - 1)]
    files += [bytes(content).replace(header + b"(2", header + b"(9" + b"9" * n) for n in (0, 5, 12)]
    for _ in range(100):
        damaged = bytearray(content)
        for position in huge.integers(0, len(content), 8):
            damaged[position] = huge.integers(0, 256)
        files.append(bytes(damaged))
    n_refused = 0
    for file in files:
        path.write_bytes(file)
        try:
            from_official(path)
        except ValueError as error:
            assert len(str(error).splitlines()) == 1
            n_refused += 1
    assert n_refused > 80  # few bytes do not matter


def test_encrypted_and_unknown_compression(tmp_path, as_official):
    path = saved(tmp_path / "mixer.npz", **as_official(small()))
    content = path.read_bytes()
    for offset_local, offset_central, value in ((6, 8, b"\x01\x00"), (8, 10, b"\x63\x00")):
        changed = bytearray(content)
        for signature, offset in ((b"PK\x03\x04", offset_local), (b"PK\x01\x02", offset_central)):
            start = content.index(signature) + offset
            changed[start : start + 2] = value
        path.write_bytes(changed)
        with pytest.raises(ValueError, match=r"is damaged or not an \.npz file"):
            from_official(path)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"is damaged or not an \.npz file"):
        from_official(tmp_path / "one.npy")
    with pytest.raises(ValueError, match=r"is torch.int64 \[8, 48\] and should be"):
        from_official(saved(path, **as_official(small()) | {"stem/kernel": np.zeros((4, 4, 3, 8), np.int64)}))
