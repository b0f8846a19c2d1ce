"""Every block against plain loops in float64, the published sizes, two other implementations, and bad input."""

import inspect
import json
import math
import warnings
from dataclasses import asdict, replace

import mlp_mixer_pytorch
import numpy as np
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mixer import (
    ChannelMixingMLP,
    ImageToPatches,
    MixerLayer,
    MLPMixer,
    OutputMLP,
    PerPatchMLP,
    TokenMixingMLP,
    to_convolution,
)
from mixer.config import MixerConfig, patch_grid

B, N_TOKENS, N_CHANNEL, N_HIDDEN = 2, 6, 5, 7
SMALL = dict(n_layers=2, n_channel=5, n_hidden=7, n_output=3, image_size=(4, 6), patch_size=2, n_image_channel=3)


@pytest.fixture(autouse=True)
def in_float64():
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def randomised(module):
    """The module with random parameters everywhere, also where they start at 0 or 1."""
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn_like(p))
    return module


def gelu(x, kind="erf"):
    if kind == "erf":
        return 0.5 * x * (1 + math.erf(x / math.sqrt(2)))
    return 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def linear_by_loops(layer, x):
    w, b = layer.weight.tolist(), layer.bias.tolist()
    return [sum(w[i][j] * x[j] for j in range(len(x))) + b[i] for i in range(len(b))]


def norm_by_loops(layer, table):
    """LayerNorm of one table (a list of tokens), jointly or token by token, as the shape of its weight says."""
    weight, bias = layer.weight.tolist(), layer.bias.tolist()
    joint = layer.weight.dim() == 2
    result = []
    for t, token in enumerate(table):
        values = [v for row in table for v in row] if joint else token
        mean = sum(values) / len(values)
        variance = sum((v - mean) ** 2 for v in values) / len(values)
        scale = (
            [(w, b) for w, b in zip(weight[t], bias[t], strict=True)] if joint else list(zip(weight, bias, strict=True))
        )
        result.append(
            [(v - mean) / math.sqrt(variance + layer.eps) * w + b for v, (w, b) in zip(token, scale, strict=True)]
        )
    return result


def mlp_by_loops(block, vector, kind):
    return linear_by_loops(block.fc2, [gelu(v, kind) for v in linear_by_loops(block.fc1, vector)])


def token_mixing_by_loops(block, table, kind="erf"):
    normed = norm_by_loops(block.norm, table)
    result = [list(row) for row in table]
    for c in range(len(table[0])):
        update = mlp_by_loops(block, [row[c] for row in normed], kind)
        for t, value in enumerate(update):
            result[t][c] += value
    return result


def channel_mixing_by_loops(block, table, kind="erf"):
    normed = norm_by_loops(block.norm, table)
    return [
        [v + u for v, u in zip(row, mlp_by_loops(block, normed[t], kind), strict=True)] for t, row in enumerate(table)
    ]


def test_patches_by_loops():
    images = torch.randn(B, 3, 4, 6)
    patches = ImageToPatches(2)(images)
    assert patches.shape == (B, 6, 12)
    for b in range(B):
        for token in range(6):
            expected = [
                images[b, c, 2 * (token // 3) + row, 2 * (token % 3) + column].item()
                for c in range(3)
                for row in range(2)
                for column in range(2)
            ]
            assert patches[b, token].tolist() == expected


@settings(max_examples=60, deadline=None)
@given(B=st.integers(1, 3), C=st.integers(1, 4), rows=st.integers(1, 5), columns=st.integers(1, 5), P=st.integers(1, 5))
def test_patches_round_trip_and_unfold(B, C, rows, columns, P):
    images = torch.randn(B, C, rows * P, columns * P)
    to_patches = ImageToPatches(P)
    patches = to_patches(images)
    assert patches.shape == (B, rows * columns, C * P * P)
    assert torch.equal(to_patches.inverse(patches, (rows * P, columns * P)), images)
    assert torch.equal(patches, torch.nn.functional.unfold(images, P, stride=P).transpose(1, 2))


@settings(max_examples=60, deadline=None)
@given(H=st.integers(1, 40), W=st.integers(1, 40), P=st.integers(1, 40))
def test_grid_divides_or_says_what_would(H, W, P):
    if H % P == 0 and W % P == 0:
        assert patch_grid((H, W), P) == (H // P, W // P)
    else:
        with pytest.raises(ValueError, match="not divisible") as error:
            patch_grid((H, W), P)
        offered = [int(p) for p in str(error.value).split("choose patch_size ")[1].split(", ")]
        assert offered
        assert all(H % p == 0 and W % p == 0 for p in offered)


@pytest.mark.parametrize("norm", ["tokens_channels", "channels"])
@pytest.mark.parametrize("kind", ["erf", "tanh"])
@pytest.mark.parametrize(
    ("block_class", "by_loops"),
    [(TokenMixingMLP, token_mixing_by_loops), (ChannelMixingMLP, channel_mixing_by_loops)],
)
def test_mixing_by_loops(block_class, by_loops, norm, kind):
    block = randomised(block_class(N_TOKENS, N_CHANNEL, N_HIDDEN, norm=norm, gelu=kind, eps=1e-3))
    x = torch.randn(B, N_TOKENS, N_CHANNEL)
    expected = torch.tensor([by_loops(block, table, kind) for table in x.tolist()])
    torch.testing.assert_close(block(x), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("norm", ["tokens_channels", "channels"])
def test_output_by_loops(norm):
    block = randomised(OutputMLP(N_TOKENS, N_CHANNEL, 3, norm=norm))
    x = torch.randn(B, N_TOKENS, N_CHANNEL)
    expected = []
    for table in x.tolist():
        normed = norm_by_loops(block.norm, table)
        mean = [sum(row[c] for row in normed) / N_TOKENS for c in range(N_CHANNEL)]
        expected.append(linear_by_loops(block.linear, mean))
    torch.testing.assert_close(block(x), torch.tensor(expected), rtol=1e-12, atol=1e-12)


def test_whole_model_by_loops():
    model = randomised(MLPMixer(**SMALL))
    images = torch.randn(B, 3, 4, 6)
    for image, logits in zip(images, model(images), strict=True):
        table = [linear_by_loops(model.per_patch.linear, patch) for patch in ImageToPatches(2)(image[None])[0].tolist()]
        for layer in model.layers:
            table = channel_mixing_by_loops(layer.channel_mixing, token_mixing_by_loops(layer.token_mixing, table))
        torch.testing.assert_close(logits, model.output(torch.tensor([table]))[0], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "block",
    [
        PerPatchMLP(N_CHANNEL, 4),
        TokenMixingMLP(N_TOKENS, N_CHANNEL, 3),
        ChannelMixingMLP(N_TOKENS, N_CHANNEL, 3, norm="channels"),
        MixerLayer(N_TOKENS, N_CHANNEL, 2, 3),
        OutputMLP(N_TOKENS, N_CHANNEL, 3),
    ],
    ids=lambda block: type(block).__name__,
)
def test_gradients(block):
    block = block.double()
    names, values = zip(*block.named_parameters(), strict=True)

    def call(x, *parameters):
        return torch.func.functional_call(block, dict(zip(names, parameters, strict=True)), (x,))

    x = torch.randn(B, N_TOKENS, N_CHANNEL, requires_grad=True)
    values = [torch.randn_like(v).requires_grad_() for v in values]
    assert torch.autograd.gradcheck(call, (x, *values))


@pytest.mark.parametrize(
    ("sizes", "n_parameters"),
    [
        (
            dict(n_layers=2, n_channel=20, n_hidden=64, n_output=10, image_size=28, patch_size=2, n_image_channel=1),
            95_494,
        ),
        (
            dict(n_layers=2, n_channel=20, n_hidden=64, n_output=10, image_size=32, patch_size=4, n_image_channel=3),
            35_918,
        ),
        (
            dict(n_layers=6, n_channel=128, n_hidden=128, n_output=100, image_size=32, patch_size=4, n_image_channel=3),
            529_764,
        ),
    ],
)
def test_published_parameter_counts(sizes, n_parameters):
    assert MLPMixer(**sizes).n_parameters == n_parameters


SIZES = st.integers(1, 5)


@settings(max_examples=40, deadline=None)
@given(
    st.tuples(SIZES, SIZES, SIZES, SIZES, st.tuples(SIZES, SIZES), SIZES, SIZES, SIZES, SIZES),
    st.sampled_from(["tokens_channels", "channels"]),
)
def test_the_configuration_foresees_the_model(sizes, norm):
    *first, (rows, columns), patch_size, n_image_channel, n_hidden_token, n_hidden_channel = sizes
    image_size = (rows * patch_size, columns * patch_size)
    arguments = (*first, image_size, patch_size, n_image_channel, n_hidden_token, n_hidden_channel, norm)
    config, model = MixerConfig(*arguments), MLPMixer(*arguments)
    assert config.n_parameters == sum(p.numel() for p in model.parameters()) == model.n_parameters
    assert (config.grid, config.n_tokens, config.image_shape) == (model.grid, model.n_tokens, model.image_shape)
    assert model.config == config.as_dict() == json.loads(json.dumps(asdict(config)))
    assert MixerConfig(**model.config) == config
    assert {config: 1}[MixerConfig(**model.config)]  # frozen, and so a key
    assert replace(config, n_layers=7).n_layers == 7


def test_the_arguments_of_the_model_are_those_of_its_configuration():
    names = "n_layers n_channel n_hidden n_output image_size patch_size n_image_channel n_hidden_token n_hidden_channel"
    assert [*inspect.signature(MLPMixer).parameters] == [
        *names.split(),
        "norm",
        "gelu",
        "eps",
        "token_mixing",
        "channel_mixing",
    ]
    with pytest.raises(TypeError, match="n_layer"):
        MLPMixer(n_layer=2)


@pytest.mark.parametrize("integer", [np.int64, np.uint8, torch.tensor, lambda n: torch.tensor([n]).max() + 0, np.array])
def test_sizes_of_numpy_and_torch_become_integers(integer):
    sizes = {name: integer(size) for name, size in SMALL.items() if name != "image_size"}
    model = MLPMixer(**sizes, image_size=(integer(4), integer(6)))
    assert model.config == MLPMixer(**SMALL).config
    assert {type(size) for name, size in model.config.items() if name.startswith("n_")} == {int}
    assert json.loads(json.dumps(model.config)) == model.config
    assert repr(model) == repr(MLPMixer(**SMALL))
    block = TokenMixingMLP(integer(6), integer(5), integer(7))
    assert repr(block) == repr(TokenMixingMLP(6, 5, 7))
    assert patch_grid(integer(6), integer(2)) == (3, 3)
    assert type(ImageToPatches(integer(2)).patch_size) is int


NO_SIZES = [
    np.float64(2),
    np.bool_(True),
    torch.tensor(2.0),
    torch.tensor(True),
    torch.tensor([2]),
    np.array([2, 3]),
    "2",
]


@pytest.mark.parametrize("value", [*NO_SIZES, torch.tensor(2, device="meta")], ids=repr)
def test_what_only_looks_like_a_size_is_refused(value):
    for name in ("n_layers", "image_size", "patch_size", "n_hidden_token"):
        with pytest.raises(ValueError, match=f"{name} is .*; it must be a whole number of at least 1"):
            MLPMixer(**{**SMALL, name: value})


def test_sizes_are_bounded_before_anything_is_built():
    for name, value, most in [("n_layers", 10_001, "10,000"), ("n_channel", 2**31, "2,147,483,647")]:
        with pytest.raises(ValueError, match=f"{name} is {value:,}; it must be a whole number of at most {most}"):
            MLPMixer(**{**SMALL, name: value})
    with pytest.raises(ValueError, match="n_layers is 1,000,000,000; it must be"):
        MLPMixer(**{**SMALL, "n_layers": 10**9})
    with pytest.raises(ValueError, match=r"choose patch_size 1, 1000000007$"):  # a prime: divisors in a moment
        MLPMixer(**{**SMALL, "image_size": 10**9 + 7})
    with pytest.raises(ValueError, match="not divisible") as error:
        patch_grid(2**4 * 3**3 * 5 * 7 * 11, 13)
    assert str(error.value).endswith("choose patch_size 8, 9, 10, 11, 12, 14, 15, 16")


OFFICIAL = dict(n_output=1000, image_size=224, n_image_channel=3, norm="channels", gelu="tanh", eps=1e-6)


@pytest.mark.parametrize(
    ("sizes", "n_parameters"),
    [
        (dict(n_layers=12, n_channel=768, n_hidden=384, n_hidden_channel=3072, patch_size=16), 59_880_472),
        (dict(n_layers=8, n_channel=512, n_hidden=256, n_hidden_channel=2048, patch_size=16), 18_528_264),
    ],
)
def test_official_parameter_counts(sizes, n_parameters):
    with torch.device("meta"):
        assert MLPMixer(**sizes, **OFFICIAL).n_parameters == n_parameters


def test_parity_with_timm():
    torch.set_default_dtype(torch.float32)
    theirs = randomised(
        timm.models.mlp_mixer.MlpMixer(
            num_classes=7, img_size=32, patch_size=8, num_blocks=2, embed_dim=24, mlp_ratio=(0.5, 4.0)
        )
    )
    for p in theirs.parameters():
        p.data.mul_(0.3)
    ours = MLPMixer(2, 24, 12, 7, 32, 8, 3, n_hidden_channel=96, norm="channels", eps=1e-6)
    names = {"mlp_tokens": "token_mixing", "mlp_channels": "channel_mixing"}
    norms = {"norm1": "token_mixing.norm", "norm2": "channel_mixing.norm"}
    weights = {}
    for name, value in theirs.state_dict().items():
        for old, new in {**names, **norms, "blocks.": "layers.", "stem.proj": "per_patch.linear"}.items():
            name = name.replace(old, new)
        name = "output." + name if name.startswith("norm") else name.replace("head", "output.linear")
        weights[name] = value.flatten(1) if value.dim() == 4 else value
    ours.load_state_dict(weights)
    images = torch.randn(3, 3, 32, 32)
    assert (ours(images) - theirs(images)).abs().max() < 1e-5


def test_parity_with_mlp_mixer_pytorch():
    theirs = mlp_mixer_pytorch.MLPMixer(
        image_size=16,
        channels=3,
        patch_size=4,
        dim=10,
        depth=2,
        num_classes=4,
        expansion_factor=4,
        expansion_factor_token=0.5,
    ).double()
    randomised(theirs)
    hidden = [theirs[2][0].fn[0].out_channels, theirs[2][1].fn[0].out_features]  # their two ratios are swapped
    ours = MLPMixer(2, 10, 1, 4, 16, 4, 3, *hidden, norm="channels")
    # their patches are ordered (row, column, channel), and their token mixing is a convolution of kernel size 1
    order = torch.arange(48).view(3, 4, 4).permute(1, 2, 0).flatten()
    ours.per_patch.linear.weight.data[:, order] = theirs[1].weight.data
    ours.per_patch.linear.bias.data = theirs[1].bias.data
    for layer, block in zip(ours.layers, theirs[2:4], strict=True):
        for mine, other in zip((layer.token_mixing, layer.channel_mixing), block, strict=True):
            mine.norm.load_state_dict(other.norm.state_dict())
            for fc, source in ((mine.fc1, other.fn[0]), (mine.fc2, other.fn[3])):
                fc.weight.data = source.weight.data.reshape(fc.weight.shape)
                fc.bias.data = source.bias.data
    ours.output.norm.load_state_dict(theirs[4].state_dict())
    ours.output.linear.load_state_dict(theirs[6].state_dict())
    images = torch.randn(3, 3, 16, 16)
    torch.testing.assert_close(ours(images), theirs(images), rtol=1e-10, atol=1e-10)


def test_intermediates_lead_to_the_same_logits():
    model = randomised(MLPMixer(**SMALL, n_hidden_token=4))
    images = torch.randn(B, 3, 4, 6)
    logits, results = model.forward_intermediates(images)
    assert torch.equal(logits, model(images))
    shapes = {name: tuple(value.shape) for name, value in results.items()}
    table = (B, 6, 5)
    expected = {"patches": (B, 6, 12), "tokens": table}
    for i in range(2):
        expected |= {f"layers.{i}.token_mixing.hidden": (B, 5, 4), f"layers.{i}.token_mixing": table}
        expected |= {f"layers.{i}.channel_mixing.hidden": (B, 6, 7), f"layers.{i}.channel_mixing": table}
    assert shapes == expected
    assert torch.equal(results["layers.0.token_mixing"], model.layers[0].token_mixing(results["tokens"]))
    assert torch.equal(results["layers.1.channel_mixing"], model.layers[1](results["layers.0.channel_mixing"]))


def test_repr_reads():
    text = repr(MLPMixer(**SMALL))
    assert "3×4×6 image → 6 tokens" in text
    assert "(token_mixing): TokenMixingMLP(" in text


@pytest.mark.parametrize("name", ["n_layers", "n_channel", "n_hidden", "n_output", "patch_size", "n_image_channel"])
@pytest.mark.parametrize("value", [0, -3, 2.5, True, None])
def test_sizes_must_be_positive_whole_numbers(name, value):
    with pytest.raises(ValueError, match=rf"{name} is {value}; it must be a whole number of at least 1"):
        MLPMixer(**{**SMALL, name: value})


@pytest.mark.parametrize("image_size", [0, (4, -2), 2.0, (4, 6, 8), "28"])
def test_image_size_must_be_one_or_two_whole_numbers(image_size):
    with pytest.raises(ValueError, match="must be a whole number of at least 1"):
        MLPMixer(**{**SMALL, "image_size": image_size})


def test_bad_options_and_images():
    with pytest.raises(ValueError, match="30×30 is not divisible into 4×4 patches; choose patch_size 1, 2, 3, 5, 6"):
        MLPMixer(**{**SMALL, "image_size": 30, "patch_size": 4})
    with pytest.raises(ValueError, match="norm is 'batch'; choose one of tokens_channels, channels"):
        MLPMixer(**SMALL, norm="batch")
    with pytest.raises(ValueError, match="gelu is 'relu'; choose one of erf, tanh"):
        MLPMixer(**SMALL, gelu="relu")
    for eps in (-1.0, 0, math.nan, "small"):
        with pytest.raises(ValueError, match="it must be a small positive number"):
            MLPMixer(**SMALL, eps=eps)
    with pytest.raises(ValueError, match="n_hidden_token is 0"):
        MLPMixer(**SMALL, n_hidden_token=0)
    model = MLPMixer(**SMALL)
    with pytest.raises(ValueError, match=r"images are torch\.uint8; normalise them first"):
        model(torch.zeros(1, 3, 4, 6, dtype=torch.uint8))
    for shape in [(2, 1, 4, 6), (2, 3, 6, 4), (3, 4, 6)]:
        with pytest.raises(ValueError, match=r"this model takes \[B, 3, 4, 6\]"):
            model(torch.zeros(shape))
    with pytest.raises(ValueError, match=r"must be \[B, C_in, H, W\]"):
        ImageToPatches(2)(torch.zeros(4, 6))
    with pytest.raises(ValueError, match="do not fill an image of 4×6 pixels"):
        ImageToPatches(2).inverse(torch.zeros(1, 5, 12), (4, 6))


def traced(model, image):
    return torch.jit.trace(model, image)


def symbolic(model, image):
    return torch.fx.symbolic_trace(model)


def exported(model, image, strict=False):
    batch = {"image": {0: torch.export.Dim("B")}}
    return torch.export.export(model, (image,), dynamic_shapes=batch, strict=strict).module()


def exported_strictly(model, image):
    return exported(model, image, strict=True)


def vectorised(model, image):
    return lambda image: torch.func.vmap(lambda one: model(one[None])[0])(image)


def compiled(model, image):
    torch.compiler.reset()
    return torch.compile(model, backend="eager", fullgraph=True, dynamic=True)


@pytest.mark.parametrize("tracer", [traced, symbolic, exported, exported_strictly, vectorised, compiled])
@pytest.mark.parametrize("twin", [False, True], ids=["mixer", "twin"])
@pytest.mark.parametrize("norm", ["tokens_channels", "channels"])
def test_tracers_see_no_check(tracer, twin, norm):
    model = randomised(MLPMixer(**SMALL, norm=norm)).eval()
    model = to_convolution(model) if twin else model
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)
        network = tracer(model, torch.randn(2, 3, 4, 6))
    for n in (2, 3, 5):  # also another batch than the one that was traced
        images = torch.randn(n, 3, 4, 6)
        torch.testing.assert_close(network(images), model(images), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("block", [ImageToPatches(2), TokenMixingMLP(6, 5, 3), ChannelMixingMLP(6, 5, 3)], ids=repr)
@pytest.mark.parametrize("tracer", [traced, symbolic, compiled])
def test_blocks_are_traced_alone(tracer, block):
    x = torch.randn(2, 3, 4, 6) if isinstance(block, ImageToPatches) else torch.randn(2, 6, 5)
    block = block.double()
    torch.testing.assert_close(tracer(block, x)(x), block(x), rtol=1e-9, atol=1e-9)


def test_a_symbolic_graph_still_refuses_other_images():
    with pytest.raises(ValueError, match=r"images have shape \[1, 3, 6, 4\]; this model takes \[B, 3, 4, 6\]"):
        torch.fx.symbolic_trace(MLPMixer(**SMALL))(torch.zeros(1, 3, 6, 4))


def test_tensorboard_draws_the_graph(tmp_path):
    from torch.utils.tensorboard import SummaryWriter

    for name, model in (("mixer", MLPMixer(**SMALL)), ("twin", to_convolution(MLPMixer(**SMALL)))):
        with warnings.catch_warnings(), SummaryWriter(str(tmp_path / name)) as writer:
            warnings.simplefilter("error", torch.jit.TracerWarning)
            writer.add_graph(model, torch.randn(1, 3, 4, 6))
        (file,) = (tmp_path / name).iterdir()
        assert b"token_mixing" in file.read_bytes()


def test_gradients_of_single_images():
    model = MLPMixer(**SMALL)
    images = torch.randn(4, 3, 4, 6)

    def loss(parameters, image):
        return torch.func.functional_call(model, parameters, (image[None],)).square().sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(dict(model.named_parameters()), images)
    model(images).square().sum().backward()
    for name, p in model.named_parameters():
        torch.testing.assert_close(each[name].sum(0), p.grad, rtol=1e-9, atol=1e-9)
