"""Other ways to mix tokens: each is what its formula says, counts, saves, trains and resumes like the MLP."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import nn

import mixer
from mixer import MLPMixer, analysis, checkpoint, load_checkpoint, to_convolution
from mixer.cli import run as command
from mixer.cli.options import make_parser
from mixer.cli.state import restore, state_of
from mixer.config import CHANNEL_MIXINGS, TOKEN_MIXINGS, MixerConfig, check_unchanged
from mixer.convolution import ConvolutionalMixer, TokenMixingConv, copy_weights
from mixer.mixing import LowRankMixing, NoMixing, RandomMixing, TokenMixing
from mixer.model import MixerLayer, TokenMixingMLP
from mixer.recipe import RECIPES, Recipe, choose_recipe, make_optimisers, parameter_groups
from mixer.training import Trainer
from mixer.widgets import ConvolutionTwin, MixerFlow, TokenMixingExplorer

OTHERS = [name for name in TOKEN_MIXINGS if name != "mlp"]
ROWS, COLUMNS, N_CHANNEL, N_HIDDEN = 3, 4, 6, 5
T = ROWS * COLUMNS
PLACES = [(row, column) for row in range(ROWS) for column in range(COLUMNS)]
QUICK = ["--dataset", "digits", "--device", "cpu", "--n_layers", 1, "--n_channel", 8, "--n_hidden", 8]
QUICK += ["--batch_size", 256]


def made(name, **options):
    """A block with random numbers everywhere, also in its norm, in float64."""
    sizes = dict(norm="channels", eps=1e-3) | options
    block = mixer.TOKEN_MIXINGS[name](T, N_CHANNEL, N_HIDDEN, grid=(ROWS, COLUMNS), **sizes).double()
    with torch.no_grad():
        for p in block.parameters():
            p.normal_()
    return block


def normalised(block, x):
    """LayerNorm by hand, over the axes of its weight."""
    axes = (1, 2) if block.norm.weight.dim() == 2 else (2,)
    mean, variance = x.mean(axes, keepdim=True), x.var(axes, correction=0, keepdim=True)
    return (x - mean) / (variance + block.norm.eps).sqrt() * block.norm.weight + block.norm.bias


def matrix(block, name, c):
    """The update of a channel as one matrix on tokens [T, T] and a bias [T], from the formulas, place by place."""
    W, b = torch.zeros(T, T, dtype=torch.float64), torch.zeros(T, dtype=torch.float64)
    if name == "linear":
        return block.fc.weight, block.fc.bias
    if name == "low_rank":
        W1, W2 = block.fc1.weight, block.fc2.weight
        return W2 @ W1, W2 @ block.fc1.bias + block.fc2.bias
    for t, (row, column) in enumerate(PLACES):
        near = [s for s, (r, k) in enumerate(PLACES) if abs(r - row) <= 1 and abs(k - column) <= 1]
        down, right = [(0, -1), (0, 1), (-1, 0), (1, 0)][4 * c // N_CHANNEL]
        neighbour = (row + down, column + right)
        for s, (r, k) in enumerate(PLACES):
            if name == "average":
                W[t, s] = (s in near) / len(near) - (s == t)
            elif name == "shift":
                W[t, s] = (r, k) == (neighbour if neighbour in PLACES else (row, column))
            elif name == "toeplitz":
                W[t, s] = block.kernel[r - row + ROWS - 1, k - column + COLUMNS - 1]
            elif name == "kronecker":
                W[t, s] = block.down[row, r] * block.across[column, k]
    if name == "toeplitz":
        b = block.bias.expand(T)
    return W, block.bias if name == "kronecker" else b


@pytest.mark.parametrize("norm", ["channels", "tokens_channels"])
@pytest.mark.parametrize("name", ["linear", "average", "shift", "toeplitz", "low_rank", "kronecker"])
@torch.no_grad()
def test_a_block_is_its_matrix(name, norm):
    block, x = made(name, norm=norm), torch.randn(2, T, N_CHANNEL, dtype=torch.float64)
    z = normalised(block, x)
    found, expected = block(x) - x, torch.empty_like(x)
    for c in range(N_CHANNEL):
        W, b = matrix(block, name, c)
        expected[:, :, c] = z[:, :, c] @ W.T + b
    assert torch.allclose(found, expected, atol=1e-12)


def test_the_shift_by_hand():
    """Two rows of three, four channels, each the number of its place; the norm is left out."""
    block = mixer.TOKEN_MIXINGS["shift"](6, 4, 1, grid=(2, 3))
    block.norm = nn.Identity()
    x = torch.arange(6.0)[None, :, None].expand(1, 6, 4)
    left, right, above, below = (block(x) - x)[0].T.int().tolist()
    assert left == [0, 0, 1, 3, 3, 4]
    assert right == [1, 2, 2, 4, 5, 5]
    assert above == [0, 1, 2, 0, 1, 2]
    assert below == [3, 4, 5, 3, 4, 5]


@pytest.mark.parametrize("n_channel", [1, 2, 3, 4, 5, 7, 8])
def test_the_quarters_of_the_channels(n_channel):
    block = mixer.TOKEN_MIXINGS["shift"](9, n_channel, 1, grid=(3, 3))
    block.norm = nn.Identity()
    x = torch.arange(9.0)[None, :, None].expand(1, 9, n_channel)
    middle = (block(x) - x)[0, 4].int().tolist()
    assert middle == [[3, 5, 1, 7][4 * c // n_channel] for c in range(n_channel)]


def test_average_at_the_corner_counts_only_what_is_there():
    block = mixer.TOKEN_MIXINGS["average"](6, 1, 1, grid=(2, 3))
    block.norm = nn.Identity()
    x = torch.arange(6.0)[None, :, None]
    update = (block(x) - x).flatten().tolist()
    assert update == pytest.approx([2 - 0, 2.5 - 1, 3 - 2, 2 - 3, 2.5 - 4, 3 - 5])


@pytest.mark.parametrize("name", OTHERS)
def test_gradients(name):
    block = made(name)
    x = torch.randn(2, T, N_CHANNEL, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, *_: block(x), (x, *block.parameters()))


@pytest.mark.parametrize("grid", [(1, 1), (1, 5), (5, 1), (2, 2)])
@pytest.mark.parametrize("name", OTHERS)
def test_every_grid(name, grid):
    T = grid[0] * grid[1]
    block = mixer.TOKEN_MIXINGS[name](T, 3, 2, grid=grid)
    assert block(torch.randn(0, T, 3)).shape == (0, T, 3)
    y = block(torch.randn(2, T, 3))
    assert y.shape == (2, T, 3)
    assert y.isfinite().all()


def test_the_parameters_and_how_they_are_drawn():
    names = {name: [*mixer.TOKEN_MIXINGS[name](T, 6, 5, **grid).state_dict()] for name, grid in on_grid().items()}
    norm, two = ["norm.weight", "norm.bias"], ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias"]
    assert names.pop("none") == []
    assert names == dict(
        mlp=norm + two,
        random=norm + two,
        low_rank=norm + two,
        linear=[*norm, "fc.weight", "fc.bias"],
        average=norm,
        shift=norm,
        toeplitz=["kernel", "bias", *norm],
        kronecker=["down", "across", "bias", *norm],
    )
    big = dict(n_tokens=30 * 40, n_channel=1, n_hidden=1, grid=(30, 40))
    toeplitz, kronecker = (mixer.TOKEN_MIXINGS[name](**big) for name in ("toeplitz", "kronecker"))
    assert (list(toeplitz.kernel.shape), list(toeplitz.bias.shape)) == ([59, 79], [1])
    for p, n in ((toeplitz.kernel, 1200), (kronecker.down, 30), (kronecker.across, 40), (kronecker.bias, 1200)):
        assert n**-0.5 * 0.98 < p.abs().max() <= n**-0.5
        assert p.std().item() == pytest.approx((3 * n) ** -0.5, rel=0.06)
    assert toeplitz.bias.abs() <= 1200**-0.5


def on_grid():
    return {name: {} if name == "mlp" else dict(grid=(ROWS, COLUMNS)) for name in TOKEN_MIXINGS}


def test_the_registry_is_what_the_configuration_names():
    assert tuple(mixer.TOKEN_MIXINGS) == TOKEN_MIXINGS
    assert mixer.TOKEN_MIXINGS["mlp"] is TokenMixingMLP
    assert all(issubclass(c, TokenMixing | TokenMixingMLP | NoMixing) for c in mixer.TOKEN_MIXINGS.values())


def test_random_mixing_is_an_mlp_that_stays_as_drawn():
    torch.manual_seed(3)
    block = RandomMixing(T, 6, 5)
    torch.manual_seed(3)
    mlp, x = TokenMixingMLP(T, 6, 5), torch.randn(2, T, 6)
    assert all(torch.equal(p, q) for p, q in zip(block.parameters(), mlp.parameters(), strict=True))
    assert torch.allclose(block(x), mlp(x), atol=1e-6)
    assert [name for name, p in block.named_parameters() if p.requires_grad] == ["norm.weight", "norm.bias"]


def test_no_mixing_gives_its_input():
    x = torch.randn(2, T, 6)
    assert NoMixing(T, 6, 5)(x) is x


MIXINGS = [(token, channel) for token in TOKEN_MIXINGS for channel in CHANNEL_MIXINGS]


@pytest.mark.parametrize("norm", ["channels", "tokens_channels"])
@pytest.mark.parametrize(("token", "channel"), MIXINGS)
def test_counts_names_and_checkpoints(tmp_path, small_model, token, channel, norm):
    sizes = dict(n_layers=3, image_size=(6, 4), norm=norm, n_hidden_token=3)
    model = small_model(**sizes, token_mixing=token, channel_mixing=channel)
    config = model.sizes
    assert config.n_parameters == sum(p.numel() for p in model.parameters()) == model.n_parameters
    assert (model.config["token_mixing"], model.config["channel_mixing"]) == (token, channel)
    assert MixerConfig(**model.config) == config
    assert asdict(config).keys() == model.config.keys()
    assert [*model.config][-2:] == ["token_mixing", "channel_mixing"]
    check_unchanged(model, MLPMixer)
    checkpoint.save(tmp_path / "m.safetensors", model)
    again, _ = load_checkpoint(tmp_path / "m.safetensors")
    images = torch.randn(2, 1, 6, 4)
    assert torch.equal(again(images), model(images))
    assert repr(again) == repr(model)
    learning = {name: p.requires_grad for name, p in model.named_parameters()}
    assert {name: p.requires_grad for name, p in again.named_parameters()} == learning
    assert all(learning.values()) == (token != "random")


@pytest.mark.parametrize(("token", "channel"), MIXINGS)
def test_intermediates(small_model, token, channel):
    model = small_model(n_layers=2, token_mixing=token, channel_mixing=channel)
    images = torch.randn(2, 1, 4, 4)
    logits, results = model.forward_intermediates(images)
    assert torch.equal(logits, model(images))
    hidden = {"token_mixing"} if token in ("mlp", "random", "low_rank") else set()
    hidden |= {"channel_mixing"} if channel == "mlp" else set()
    assert {name.split(".")[2] for name in results if name.endswith(".hidden")} == hidden
    streams = [f"layers.{i}.{name}" for i in range(2) for name in ("token_mixing", "channel_mixing")]
    assert [name for name in results if name in streams] == streams
    assert torch.equal(results["layers.0.channel_mixing"], model.layers[0](results["tokens"]))


@pytest.mark.parametrize("token", TOKEN_MIXINGS)
def test_a_changed_block_is_noticed(small_model, token):
    model = small_model(token_mixing=token)
    model.layers[0].token_mixing.forward = abs
    with pytest.raises(ValueError, match=r"token_mixing is .*, but for its forward"):
        check_unchanged(model, MLPMixer)
    model = small_model(token_mixing=token)
    model.layers[0].token_mixing = (
        small_model(token_mixing="none" if token != "none" else "shift").layers[0].token_mixing
    )
    with pytest.raises(ValueError, match=r"token_mixing is .* and should be"):
        check_unchanged(model, MLPMixer)
    if hasattr(model := small_model(image_size=(4, 8), token_mixing=token).layers[0].token_mixing, "grid"):
        assert "grid=(2, 4)" in repr(model)


@pytest.mark.parametrize(("token", "channel"), MIXINGS)
def test_traced_and_in_half_precision(small_model, token, channel):
    model, images = small_model(token_mixing=token, channel_mixing=channel).eval(), torch.randn(2, 1, 4, 4)
    expected = model(images)
    for traced in (torch.fx.symbolic_trace(model), torch.jit.trace(model, images)):
        assert torch.equal(traced(images), expected)
    with pytest.raises(ValueError, match="images have shape"):
        torch.fx.symbolic_trace(model)(torch.zeros(2, 1, 4, 5))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(model(images).float(), expected, atol=0.05)


def test_checkpoints_from_before_load(tmp_path, small_model, monkeypatch):
    """A file without the two fields, as versions before them wrote it, by the writer itself."""
    model, old = small_model(), MLPMixer.config.fget
    without = lambda self: {k: v for k, v in old(self).items() if not k.endswith("_mixing")}  # noqa: E731
    monkeypatch.setattr(MLPMixer, "config", property(without))
    checkpoint.save(tmp_path / "m.safetensors", model)
    monkeypatch.undo()
    again, about = load_checkpoint(tmp_path / "m.safetensors")
    assert "token_mixing" not in about["config"]
    assert again.config == model.config
    assert type(again.layers[0].token_mixing) is TokenMixingMLP


@pytest.mark.parametrize("name", ["token_mixing", "channel_mixing"])
@pytest.mark.parametrize("value", ["attention", "", None, 3, ["mlp"], "MLP"])
def test_unknown_names_are_refused(small_model, name, value):
    allowed = ", ".join(TOKEN_MIXINGS if name == "token_mixing" else CHANNEL_MIXINGS)
    with pytest.raises(ValueError, match=rf"^{name} is .*; choose one of {allowed}$"):
        small_model(**{name: value})
    with pytest.raises(ValueError, match=rf"^{name} is .*; choose one of {allowed}$"):
        MixerLayer(4, 6, 5, 5, **{name: value})


def test_a_layer_by_hand_needs_a_grid():
    for name in TOKEN_MIXINGS:
        if name in ("average", "shift", "toeplitz", "kronecker"):
            for grid, shown in ((None, "None"), ((2, 3), r"\(2, 3\)")):
                with pytest.raises(
                    ValueError, match=rf"grid is {shown}; it must be the \(rows, columns\) of 12 tokens"
                ):
                    MixerLayer(12, 6, 5, 5, token_mixing=name, grid=grid)
        else:
            MixerLayer(12, 6, 5, 5, token_mixing=name)
        MixerLayer(12, 6, 5, 5, token_mixing=name, channel_mixing="none", grid=(3, 4))
        for options in (dict(norm="batch"), dict(gelu="relu"), dict(eps=2)):
            with pytest.raises(ValueError, match=rf"^{next(iter(options))} is "):
                MixerLayer(12, 6, 5, 5, token_mixing=name, grid=(3, 4), **options)
        with pytest.raises(ValueError, match="n_hidden is 0"):
            MixerLayer(12, 6, 0, 5, token_mixing=name, grid=(3, 4))


NOT_MLPS = [pair for pair in MIXINGS if pair != ("mlp", "mlp")]


@pytest.mark.parametrize(("token", "channel"), NOT_MLPS)
def test_the_twin_refuses(small_model, token, channel):
    sentence = (
        f"the convolutional twin takes a Mixer with MLPs alone, but token_mixing is {token} and channel_mixing is"
    )
    model = small_model(token_mixing=token, channel_mixing=channel)
    with pytest.raises(ValueError, match=sentence):
        to_convolution(model)
    with pytest.raises(ValueError, match=sentence):
        ConvolutionalMixer(**model.config)


def test_a_block_without_gelu_has_no_twin():
    target = TokenMixingConv(6, (2, 2), 5, "channels", "erf", 1e-5)
    copy_weights(TokenMixingMLP(4, 6, 5, norm="channels"), target)
    with pytest.raises(ValueError, match=r"gelu is Identity\(\) and should be GELU"):
        copy_weights(LowRankMixing(4, 6, 5, norm="channels"), target)


@pytest.mark.parametrize(("token", "channel"), NOT_MLPS)
def test_the_figures_refuse_or_show(tmp_path, small_model, token, channel):
    model = small_model(token_mixing=token, channel_mixing=channel)
    path, images = tmp_path / "m.safetensors", torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    checkpoint.save(path, model, dict(mean=[0.3], std=[0.2], class_names=["a", "b", "c"]))
    sentence = f"takes a Mixer with MLPs alone, but token_mixing is {token} and channel_mixing is {channel}"
    with pytest.raises(ValueError, match=sentence):
        MixerFlow(path, images)
    with pytest.raises(ValueError, match=sentence):
        ConvolutionTwin(path, images)
    if token in ("mlp", "random", "low_rank"):
        explorer = TokenMixingExplorer(path, images)
        inputs, _ = analysis.token_maps(model, 0)
        assert torch.allclose(
            explorer.maps()[0], inputs, atol=inputs.abs().max().item() / 125
        )  # 63 levels on either side of 0
        return
    for use in (lambda: TokenMixingExplorer(path), lambda: analysis.token_maps(model, 0)):
        with pytest.raises(ValueError, match=r"has no hidden units; choose a model whose token_mixing is mlp"):
            use()


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("changes", [{}, {"muon_lr": 0.02}])
@pytest.mark.parametrize(("token", "channel"), MIXINGS)
def test_only_what_learns_is_given_to_optimisers_and_linear_maps_decay(small_model, token, channel, changes):
    model = small_model(token_mixing=token, channel_mixing=channel)
    optimisers = make_optimisers(model, choose_recipe("seed", **changes), fused=True)
    names = {id(p): name for name, p in model.named_parameters()}
    given = [names[id(p)] for o in optimisers for group in o.param_groups for p in group["params"]]
    assert sorted(given) == sorted(name for name, p in model.named_parameters() if p.requires_grad)
    decayed = {names[id(p)] for p in parameter_groups(model, 0.1)[0]["params"]}
    maps = ("fc.weight", "fc1.weight", "fc2.weight", "linear.weight", "kernel", "down", "across")
    assert decayed == {name for name in given if name.endswith(maps)}
    n_matrices = {"linear": 1, "mlp": 2, "low_rank": 2}.get(token, 0) + 2 * (channel == "mlp")
    assert len(optimisers) == 1 + bool(changes and n_matrices)
    if len(optimisers) == 2:
        assert sum(len(group["params"]) for group in optimisers[0].param_groups) == n_matrices


FULL = Recipe(3, 8, 1e-2, weight_decay=0.1, warm_up=0.2, clip=0.5, ema=0.9, drop_path=0.3, muon_lr=0.02)


@pytest.mark.parametrize("recipe", [Recipe(3, 8, 1e-2), FULL], ids=["seed", "full"])
@pytest.mark.parametrize(("token", "channel"), [*[(name, "mlp") for name in OTHERS], ("random", "none")])
def test_training_stops_and_goes_on_bit_for_bit(tmp_path, small_model, small_data, token, channel, recipe):
    def trainer():
        model = small_model(token_mixing=token, channel_mixing=channel)
        return Trainer(model, small_data(), recipe, 1, "cpu", "fp32")

    whole, part, again = trainer(), trainer(), trainer()
    before = {name: p.clone() for name, p in whole.model.named_parameters()}
    list(whole)
    part.after_step = lambda n: setattr(part, "stop", part.step == 7)
    list(part)
    groups, numbers = state_of(part)
    checkpoint.save(tmp_path / "m.safetensors", part.model, numbers, checkpoint.flattened(groups | {"model": {}}))
    tensors, numbers = checkpoint.read(tmp_path / "m.safetensors")
    restore(again, checkpoint.grouped(tensors), numbers)
    assert again.step == 7
    list(again)
    assert torch.equal(weights(again.model), weights(whole.model))
    assert torch.equal(weights(again.learner), weights(whole.learner))
    for name, p in whole.model.named_parameters():
        assert torch.equal(p, before[name]) != p.requires_grad, name


def test_the_command_names_them(capsys, say):
    words = make_parser().format_help()
    for name in (*TOKEN_MIXINGS, *CHANNEL_MIXINGS):
        assert name in words
    assert say(*QUICK, "--token_mixing", "attention") == 2
    assert "--token_mixing: invalid choice: 'attention'" in capsys.readouterr().err


@pytest.mark.parametrize("channel", CHANNEL_MIXINGS)
@pytest.mark.parametrize("token", TOKEN_MIXINGS)
def test_the_command_trains_each_and_its_checkpoint_loads(tmp_path, say, token, channel):
    out = tmp_path / "run"
    mixings = ["--token_mixing", token, "--channel_mixing", channel]
    assert say(*QUICK, *mixings, "--n_epochs", 1, "--out", out) == 0
    tensors, about = checkpoint.read(out / "checkpoint.safetensors")
    model, _ = load_checkpoint(out / "checkpoint.safetensors")
    assert (about["options"]["token_mixing"], model.config["token_mixing"]) == (token, token)
    assert (about["options"]["channel_mixing"], model.config["channel_mixing"]) == (channel, channel)
    kept = [name for name in model.state_dict() if ".token_mixing." in name and ".norm." not in name]
    last = checkpoint.snapshots(tensors).get(about["step"], {})
    assert {name: w.shape for name, w in last.items()} == {name: model.state_dict()[name].shape for name in kept}


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("token", ["random", "toeplitz"])
def test_a_run_is_resumed_bit_for_bit(tmp_path, say, weights, history, without_times, token, recipe):
    options = [*QUICK, "--token_mixing", token, "--recipe", recipe, "--precision", "fp32", "--drop_path", 0.2]
    whole, part = tmp_path / "whole", tmp_path / "part"
    assert say(*options, "--n_epochs", 2, "--out", whole) == 0
    original = command.Run.save

    def save_and_stop(self):
        original(self)
        self.trainer.stop = self.trainer.step > 0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command.Run, "save", save_and_stop)
        assert say(*options, "--n_epochs", 2, "--out", part) != 0
    assert len(history(part)) == 1
    assert say("--resume", part) == 0
    assert without_times(history(part)) == without_times(history(whole))
    assert all(np.array_equal(w, weights(whole)[name]) for name, w in weights(part).items())


def test_a_run_from_before_stays_what_it_was(tmp_path, capsys, say):
    """All tensors of "low_rank" fit those of the MLP: a run that names neither is not made the other."""
    out = tmp_path / "run"
    assert say(*QUICK, "--n_epochs", 1, "--out", out) == 0
    path = out / "checkpoint.safetensors"
    tensors, about = checkpoint.read(path)
    model, _ = load_checkpoint(path)
    about["options"] = {k: v for k, v in about["options"].items() if not k.endswith("_mixing")}
    extra = {name: t for name, t in tensors.items() if not name.startswith("model.")}
    checkpoint.save(path, model, {k: v for k, v in about.items() if k != "config"}, extra)
    assert say("--resume", out, "--n_epochs", 2, "--token_mixing", "low_rank") == 2
    assert "--token_mixing is low_rank, but the run to resume has mlp" in capsys.readouterr().err
    assert say("--resume", out, "--n_epochs", 2) == 0
    assert json.loads((out / "history.jsonl").read_text().splitlines()[-1])["epoch"] == 2
    assert load_checkpoint(path)[0].config["token_mixing"] == "mlp"


def test_memory_is_a_lower_bound_for_all():
    """What an MLP would need is not asked of a block that has no hidden units."""
    sizes = dict(n_layers=2, n_channel=8, n_hidden=2, n_output=3, image_size=8, patch_size=1, n_image_channel=1)
    sizes |= dict(n_hidden_token=10**7, norm="channels")
    cpu = torch.device("cpu")
    for token in ("none", "linear", "average", "shift", "toeplitz", "kronecker"):
        command.check_memory({**sizes, "token_mixing": token}, 1000, cpu)
    with pytest.raises(ValueError, match="GiB"):
        command.check_memory(sizes, 1000, cpu)


def test_layers_of_a_forged_header_are_bounded(tmp_path, small_model, monkeypatch):
    old = MLPMixer.config.fget
    monkeypatch.setattr(MLPMixer, "config", property(lambda self: old(self) | {"n_layers": 9_999}))
    path = tmp_path / "m.safetensors"
    monkeypatch.setattr(checkpoint, "check_loadable", lambda model: None)
    for token in ("linear", "toeplitz", "low_rank"):
        checkpoint.save(path, small_model(token_mixing=token, channel_mixing="none"))
        with pytest.raises(ValueError, match="9,999 layers of"):
            load_checkpoint(path)
