"""What the live figures refuse before a page sees it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mixer import checkpoint, load_data
from mixer.data import Split
from mixer.folder import StreamedSplit
from mixer.widgets import (
    ConvolutionTwin,
    CostExplorer,
    FilterExplorer,
    MixerFlow,
    TokenMixingExplorer,
    TrainingLab,
    ValleyExplorer,
)

ABOUT = dict(mean=[0.3], std=[0.25], class_names=["a", "b", "c"])


@pytest.mark.parametrize("kind", [MixerFlow, ConvolutionTwin, TokenMixingExplorer])
@pytest.mark.parametrize("name", ["layers.0.token_mixing.fc1.weight", "layers.0.token_mixing.fc2.weight"])
def test_weights_that_are_not_finite_are_refused(small_model, tmp_path, kind, name):
    model, images = small_model(), torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    dict(model.named_parameters())[name].data[0, 0] = torch.nan
    checkpoint.save(tmp_path / "m.safetensors", model, ABOUT)
    with pytest.raises(ValueError, match="a weight of the model is not a finite number"):
        kind(tmp_path / "m.safetensors", images)


@pytest.mark.parametrize("kind", [TrainingLab, ValleyExplorer])
def test_images_that_stream_are_too_many_for_a_page(small_data, kind):
    with pytest.raises(
        ValueError, match=r"^the images of small are too many for a page; give at most [25]00,000 bytes"
    ):
        kind(replace(small_data(), train=StreamedSplit(None, torch.arange(3))))


@pytest.mark.parametrize("kind", [TrainingLab, ValleyExplorer])
def test_a_page_takes_images_of_at_most_three_channels(small_data, kind):
    data = small_data()
    four = Split(torch.zeros(16, 4, 8, 8, dtype=torch.uint8), torch.arange(16) % 3)
    images = replace(data, train=four, validation=four, test=four, image_shape=(4, 8, 8), mean=[0.5] * 4, std=[0.2] * 4)
    with pytest.raises(ValueError, match=r"^the images of small have 4 channels; a page takes at most 3$"):
        kind(images)


@pytest.mark.parametrize(
    ("name", "value"),
    [("lr", 500.0), ("lr", 1e-9), ("affine", 5.0), ("weight_decay", 50.0), ("label_smoothing", 0.95)],
)
def test_the_laboratory_refuses_what_its_page_would(name, value):
    lab = TrainingLab(load_data("digits"))
    with pytest.raises(ValueError, match=rf"^{name} is {value}; in a page it is a number from"):
        lab.settings = {name: value}


def test_the_laboratory_takes_numbers_of_numpy():
    lab = TrainingLab(load_data("digits"), n_layers=np.int64(3), patch_size=np.int32(4), lr=np.float32(0.5))
    assert [type(lab.settings[name]) for name in ("n_layers", "patch_size", "lr")] == [int, int, float]


@pytest.mark.parametrize("sizes", [{"n_layers": 4}, {"n_layers": 4, "depth": 3}, {}])
def test_sizes_of_no_mixer_have_no_costs(sizes):
    with pytest.raises(ValueError, match=r"^the sizes are .*; a Mixer has n_layers, n_channel, "):
        CostExplorer({"mine": sizes})


@pytest.mark.parametrize(("name", "number"), [("mean", torch.nan), ("mean", -torch.inf), ("std", torch.inf)])
def test_a_filter_takes_finite_means_and_deviations(name, number):
    numbers = dict(mean=[0.5], std=[0.25]) | {name: [number]}
    with pytest.raises(ValueError, match=f"^{name} is \\[{number}\\]; it"):
        FilterExplorer(torch.zeros(1, 4, 4, dtype=torch.uint8), torch.eye(4), torch.ones(4), **numbers)
