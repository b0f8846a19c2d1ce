"""Official weights: the names of timm and of the .npz files, on generated weights, with equal logits."""

import numpy as np
import pytest
import timm
import torch
from timm.models.mlp_mixer import MlpMixer

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


def as_official(model):
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


def test_an_official_file_gives_the_same_model(tmp_path):
    theirs = generated()
    np.savez(tmp_path / "mixer.npz", **as_official(theirs))
    ours = from_official(tmp_path / "mixer.npz")
    assert ours.config["gelu"] == "tanh"
    assert ours.config["eps"] == 1e-6
    same = from_timm(theirs.state_dict(), gelu="tanh")
    for name, p in same.state_dict().items():
        assert torch.equal(ours.state_dict()[name], p), name


def test_names_of_the_official_file_are_those_of_its_code():
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
    refused({**weights, "blocks.0.mlp_tokens.fc1.weight": torch.zeros(256, 48)}, "are not square; give image_size")
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
