"""The convolutional twin: equal outputs, equal gradients, and weights that survive the round trip."""

import pytest
import torch

from mixer import (
    ChannelMixingMLP,
    ConvolutionalMixer,
    MLPMixer,
    OutputMLP,
    TokenMixingMLP,
    from_convolution,
    to_convolution,
)
from mixer.convolution import ChannelMixingConv, OutputConv, PerPatchConv, SmallCNN, TokenMixingConv, copy_weights
from mixer.model import ImageToPatches, PerPatchMLP

GRID, N_CHANNEL, N_HIDDEN = (2, 3), 5, 7
SIZES = dict(n_layers=2, n_channel=8, n_hidden=6, n_output=4, image_size=(8, 12), patch_size=4, n_image_channel=3)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def randomised(module):
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn_like(p) * 0.5)
    return module


def as_map(table):
    """[B, n_tokens, n_channel] → [B, n_channel, rows, columns]."""
    return table.transpose(1, 2).reshape(len(table), -1, *GRID)


@pytest.mark.parametrize("norm", ["tokens_channels", "channels"])
@pytest.mark.parametrize(("mlp", "conv"), [(TokenMixingMLP, TokenMixingConv), (ChannelMixingMLP, ChannelMixingConv)])
def test_mixing_blocks(mlp, conv, norm):
    block = randomised(mlp(6, N_CHANNEL, N_HIDDEN, norm=norm).double())
    twin = copy_weights(block, conv(N_CHANNEL, GRID, N_HIDDEN, norm, "erf", 1e-5))
    x = torch.randn(3, 6, N_CHANNEL, dtype=torch.float64)
    torch.testing.assert_close(twin(as_map(x)), as_map(block(x)), rtol=0, atol=1e-12)


def test_per_patch_and_output_blocks():
    block = randomised(PerPatchMLP(12, N_CHANNEL).double())
    images = torch.randn(3, 3, 4, 6, dtype=torch.float64)
    twin = copy_weights(block, PerPatchConv(3, N_CHANNEL, 2))
    torch.testing.assert_close(twin(images), as_map(block(ImageToPatches(2)(images))), rtol=0, atol=1e-12)
    head = randomised(OutputMLP(6, N_CHANNEL, 4).double())
    x = torch.randn(3, 6, N_CHANNEL, dtype=torch.float64)
    twin = copy_weights(head, OutputConv(N_CHANNEL, GRID, 4, "tokens_channels", 1e-5))
    torch.testing.assert_close(twin(as_map(x)), head(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"norm": "channels", "gelu": "tanh", "eps": 1e-6, "n_hidden_token": 3}])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_whole_network(options, dtype, tolerance):
    model = randomised(MLPMixer(**SIZES, **options)).to(dtype)
    twin = to_convolution(model)
    assert any(isinstance(m, torch.nn.Conv2d) for m in twin.modules())
    assert not any(isinstance(m, torch.nn.Linear) for m in twin.modules())
    images = torch.randn(5, 3, 8, 12, dtype=dtype)
    assert (twin(images) - model(images)).abs().max() < tolerance


@pytest.mark.parametrize("norm", ["tokens_channels", "channels"])
def test_gradients_are_equal(norm):
    model = randomised(MLPMixer(**SIZES, norm=norm)).double()
    twin = to_convolution(model)
    images = torch.randn(5, 3, 8, 12, dtype=torch.float64)
    inputs = [images.clone().requires_grad_() for _ in range(2)]
    for network, x in zip((model, twin), inputs, strict=True):
        network(x).square().sum().backward()
    torch.testing.assert_close(inputs[0].grad, inputs[1].grad, rtol=1e-10, atol=1e-10)
    for p in twin.parameters():  # carry the gradients home as if they were weights
        p.data = p.grad
    carried = from_convolution(twin)
    for (name, p), gradient in zip(model.named_parameters(), carried.parameters(), strict=True):
        torch.testing.assert_close(p.grad, gradient.data, rtol=1e-10, atol=1e-10, msg=name)


@pytest.mark.parametrize("norm", ["tokens_channels", "channels"])
def test_round_trip_keeps_every_weight(norm):
    model = randomised(MLPMixer(**SIZES, norm=norm)).eval()
    before = torch.get_rng_state()
    twin = to_convolution(model)
    assert isinstance(twin, ConvolutionalMixer)
    assert not twin.training
    back = from_convolution(twin)
    assert torch.equal(torch.get_rng_state(), before)  # the caller's random numbers are untouched
    assert back.config == model.config
    for name, value in model.state_dict().items():
        assert torch.equal(back.state_dict()[name], value), name
    with torch.no_grad():  # the twin's weights are its own
        next(twin.parameters()).zero_()
    assert next(model.parameters()).abs().sum() > 0
    assert next(back.parameters()).abs().sum() > 0


@pytest.mark.parametrize("convert", [to_convolution, from_convolution])
def test_conversion_follows_layers_and_classes(convert):
    network = randomised(MLPMixer(**SIZES)).double()
    network = network if convert is to_convolution else to_convolution(network)
    head = torch.nn.Linear(8, 9) if convert is to_convolution else torch.nn.Conv2d(8, 9, kernel_size=1)
    network.output.linear = head.double()
    network.layers = network.layers[1:]
    twin = convert(network)
    assert (twin.config["n_layers"], twin.config["n_output"]) == (1, 9)
    assert twin.config == network.config
    images = torch.randn(5, 3, 8, 12, dtype=torch.float64)
    torch.testing.assert_close(twin(images), network(images), rtol=0, atol=1e-12)


def changed(path, value):
    """A function that sets an attribute of a network, under a module's path."""
    module, _, name = path.rpartition(".")
    return lambda network: setattr(network.get_submodule(module), name, value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (changed("layers.1.token_mixing.gelu", torch.nn.ReLU()), r"token_mixing.gelu is ReLU\(\) and should be GELU"),
        (
            changed("layers.0.channel_mixing.norm.eps", 0.5),
            "channel_mixing.norm is .*eps=0.5.* and should be .*eps=1e-05",
        ),
        (changed("layers.0.dropout", torch.nn.Dropout(0.5)), "layers.0.dropout is Dropout.* and should be left out"),
        (changed("layers.0.forward", abs), "layers.0 is .*MixerLayer.*, but for its forward, and should be"),
        (changed("output.linear.bias", None), "output.linear.bias is missing|output.linear is .*bias=False"),
        (changed("output.linear", torch.nn.Identity()), r"output.linear is Identity\(\) and should be"),
        (changed("layers", torch.nn.Identity()), r"layers is Identity\(\) and should be ModuleList"),
        (lambda network: network.register_buffer("mean", torch.zeros(3)), r"mean is \[3\] and should be left out"),
    ],
)
@pytest.mark.parametrize("convert", [to_convolution, from_convolution])
def test_a_twin_that_would_compute_something_else_is_refused(convert, change, sentence):
    network = MLPMixer(**SIZES) if convert is to_convolution else to_convolution(MLPMixer(**SIZES))
    change(network)
    with pytest.raises(ValueError, match=sentence) as error:
        convert(network)
    assert "\n" not in str(error.value)


def test_only_twins_are_converted():
    model = MLPMixer(**SIZES)
    wrong = [(to_convolution, to_convolution(model)), (from_convolution, model), (to_convolution, SmallCNN(2, 3, 3))]
    for convert, network in wrong:
        with pytest.raises(ValueError, match=r"cannot be saved or converted, only (MLPMixer|ConvolutionalMixer); see"):
            convert(network)
    with pytest.raises(
        ValueError, match=r"DataParallel cannot be saved or converted, only MLPMixer; give its \.module"
    ):
        to_convolution(torch.nn.DataParallel(model))
    block = TokenMixingMLP(6, N_CHANNEL, N_HIDDEN)
    with pytest.raises(ValueError, match=r"fc1\.weight is 42 numbers and should be 48 numbers"):
        copy_weights(block, TokenMixingConv(N_CHANNEL, GRID, 8, "tokens_channels", "erf", 1e-5))
    with pytest.raises(ValueError, match=r"linear\.weight is missing and should be 60 numbers"):
        copy_weights(block, PerPatchConv(3, N_CHANNEL, 2))


def test_the_twin_refuses_what_the_mixer_refuses():
    model = MLPMixer(**SIZES)
    for network in (model, to_convolution(model)):
        with pytest.raises(ValueError, match=r"images have shape \[1, 3, 12, 8\]; this model takes \[B, 3, 8, 12\]"):
            network(torch.zeros(1, 3, 12, 8))


def test_the_cnn_to_compare_with_takes_every_size():
    network = SmallCNN(4, n_output=3, n_image_channel=2)
    for H, W in ((8, 8), (9, 5), (1, 1)):
        assert network(torch.randn(2, 2, H, W)).shape == (2, 3)
    assert network.stages(torch.randn(1, 2, 8, 12)).shape == (1, 16, 2, 3)


def test_the_cnn_to_compare_with_moves_with_the_image():
    """It knows nothing of places: an image that repeats itself has the same logits after a shift by the stride of 4."""
    network = SmallCNN(4, n_output=3, n_image_channel=1).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.padding_mode = "circular"
            module._reversed_padding_repeated_twice = [1, 1, 1, 1]
    image = torch.randn(1, 1, 16, 16)
    torch.testing.assert_close(network(image.roll((4, 8), dims=(2, 3))), network(image), rtol=1e-4, atol=1e-5)


def test_the_cnn_to_compare_with_refuses_sizes_below_one():
    with pytest.raises(ValueError, match="n_channel is 0"):
        SmallCNN(0, n_output=3, n_image_channel=1)
