"""What the live figures refuse before a page sees it."""

import pytest
import torch

from mixer import checkpoint
from mixer.widgets import ConvolutionTwin, MixerFlow, TokenMixingExplorer

ABOUT = dict(mean=[0.3], std=[0.25], class_names=["a", "b", "c"])


@pytest.mark.parametrize("kind", [MixerFlow, ConvolutionTwin, TokenMixingExplorer])
@pytest.mark.parametrize("name", ["layers.0.token_mixing.fc1.weight", "layers.0.token_mixing.fc2.weight"])
def test_weights_that_are_not_finite_are_refused(small_model, tmp_path, kind, name):
    model, images = small_model(), torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    dict(model.named_parameters())[name].data[0, 0] = torch.nan
    checkpoint.save(tmp_path / "m.safetensors", model, ABOUT)
    with pytest.raises(ValueError, match="a weight of the model is not a finite number"):
        kind(tmp_path / "m.safetensors", images)
