"""A trained Mixer that is given larger images: its maps are enlarged, and repeated tokens give the same logits."""

import pytest
import torch

from mixer import MLPMixer, seeded
from mixer.pretrained import RESIZINGS, enlarged

SIZES = dict(n_layers=2, n_channel=6, n_hidden=5, n_output=3, image_size=(4, 8), patch_size=2, n_image_channel=2)


def random_mixer(**changes):
    """A Mixer with a random number in every parameter, LayerNorm's included."""
    model = MLPMixer(**{**SIZES, **changes}).double()
    for i, p in enumerate(model.parameters()):
        p.data = torch.randn(p.shape, generator=seeded(1, i), dtype=torch.float64)
    return model


@pytest.mark.parametrize("norm", ["channels", "tokens_channels"])
@pytest.mark.parametrize("factor", [1, 2, 3])
def test_repeated_tokens_give_the_same_logits(norm, factor):
    model = random_mixer(norm=norm)
    larger = enlarged(model, factor)
    assert larger.config == {**model.config, "image_size": [4 * factor, 8 * factor]}
    images = torch.randn(3, 2, 4, 8, generator=seeded(2), dtype=torch.float64)
    tokens = model.patches(images).unflatten(1, model.grid)
    tokens = tokens.repeat_interleave(factor, dim=1).repeat_interleave(factor, dim=2).flatten(1, 2)
    repeated = larger.patches.inverse(tokens, (4 * factor, 8 * factor))
    torch.testing.assert_close(larger(repeated), model(images))


@pytest.mark.parametrize("mode", RESIZINGS)
def test_constant_maps_stay_constant(mode):
    model = random_mixer(norm="channels")
    for layer in model.layers:
        for p in layer.token_mixing.parameters():
            p.data.fill_(2.0)
    for layer in enlarged(model.eval(), 2, mode).layers:
        assert not layer.training
        torch.testing.assert_close(layer.token_mixing.fc1.weight, torch.full((5, 32), 0.5, dtype=torch.float64))
        torch.testing.assert_close(layer.token_mixing.fc2.weight, torch.full((32, 5), 2.0, dtype=torch.float64))
        torch.testing.assert_close(layer.token_mixing.fc2.bias, torch.full((32,), 2.0, dtype=torch.float64))


def test_square_images_by_one_number_are_enlarged_and_the_callers_random_numbers_kept():
    model = random_mixer(image_size=4)
    before = torch.get_rng_state()
    assert enlarged(model, 2).config == model.config | {"image_size": [8, 8]}
    assert torch.equal(torch.get_rng_state(), before)


def test_what_cannot_be_enlarged_is_refused_with_a_sentence():
    with pytest.raises(ValueError, match="mode is 'area'; choose one of nearest, bilinear, bicubic"):
        enlarged(random_mixer(), 2, "area")
    with pytest.raises(ValueError, match="factor"):
        enlarged(random_mixer(), 0)
    with pytest.raises(ValueError, match="enlarged takes a Mixer with MLPs alone"):
        enlarged(MLPMixer(**SIZES, token_mixing="linear"), 2)
