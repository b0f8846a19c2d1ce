"""What token mixing learned: maps, how smooth they are, and how they pair up."""

import pytest
import torch

from mixer import analysis, difference


def test_maps_are_rows_of_the_first_and_columns_of_the_second_matrix(small_model):
    model = small_model(image_size=(4, 6))  # a grid of 2 × 3 patches
    inputs, outputs = analysis.token_maps(model, 0)
    mlp = model.layers[0].token_mixing
    assert inputs.shape == outputs.shape == (5, 2, 3)
    assert torch.equal(inputs[1, 1], mlp.fc1.weight[1, 3:])
    assert torch.equal(outputs[4, 0], mlp.fc2.weight[:3, 4])


def test_maps_of_other_weights(small_model):
    model = small_model()
    weights = {name: torch.zeros_like(w).half() for name, w in model.state_dict().items()}
    inputs, outputs = analysis.token_maps(model, 0, weights)
    assert inputs.dtype == torch.float32 and not inputs.any() and not outputs.any()
    with pytest.raises(ValueError, match="layer is 1; this model has the layers 0 to 0"):
        analysis.token_maps(model, 1)


def test_neighbour_correlation():
    noise = torch.randn(200, 14, 14, generator=torch.Generator().manual_seed(0))
    assert abs(analysis.neighbour_correlation(noise)) < 0.02
    smooth = torch.nn.functional.avg_pool2d(noise, 5, stride=1)
    assert 0.7 < analysis.neighbour_correlation(smooth) < 1
    board = (torch.arange(8)[:, None] + torch.arange(8)) % 2
    assert analysis.neighbour_correlation(board[None].float()) == pytest.approx(-1)
    assert analysis.neighbour_correlation(torch.ones(1, 3, 3)) == 0


def test_frequency_of_known_waves():
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    waves = torch.stack([torch.ones(8, 8), (torch.pi * x / 4).cos(), (torch.pi * y).cos(), (torch.pi * (x + y)).cos()])
    assert analysis.mean_frequency(waves).tolist() == pytest.approx([0, 1 / 8, 1 / 2, 2**0.5 / 2], abs=1e-5)
    assert analysis.mean_frequency(torch.zeros(1, 4, 4)).item() == 0


def test_opposites_are_found_and_come_first():
    maps = torch.randn(7, 3, 3, generator=torch.Generator().manual_seed(1))
    maps[5] = -2 * maps[2]
    pairs = analysis.opposite_pairs(maps)
    assert pairs[0][:2] == (2, 5)
    assert pairs[0][2] == pytest.approx(-1, abs=1e-6)
    assert [cosine for *_, cosine in pairs] == sorted(cosine for *_, cosine in pairs)
    units = [unit for first, second, _ in pairs for unit in (first, second)]
    assert len(units) == len(set(units)) == 6


def test_a_difference_is_said_in_words_that_every_cpu_gives():
    one = torch.tensor([1.0, 2.0])
    assert difference(one, one + 1e-6) == difference(one, one) == "largest difference below 1e-5"
    assert difference(one, one, bound=0) == "largest difference 0"
    assert difference(one, one + torch.tensor([0.1, -0.34])) == "largest difference above 0.1"
    assert difference(one.byte(), 3 * one.byte(), bound=0) == "largest difference above 1"
    assert difference(one, one * torch.nan) == "largest difference nan"
    with pytest.raises(ValueError, match=r"\[2\] and \[1, 2\]"):
        difference(one, one[None])
    for tensor in (one[:0], one + 1j):
        with pytest.raises(
            ValueError, match=r"^the tensors are torch\.\w+ and torch\.\w+ .*; compare some real numbers$"
        ):
            difference(tensor, tensor)
