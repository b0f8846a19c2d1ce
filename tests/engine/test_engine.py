"""The engine in C, compiled natively: against PyTorch, against finite differences, and with its own random numbers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mixer import TOKEN_MIXINGS, MLPMixer
from mixer.recipe import lr_factor

HIDDEN = ["n_hidden_token", "n_hidden_channel"]
FIELDS = ["image_size", "patch_size", "n_channel", *HIDDEN, "n_layers", "n_output", "n_image_channel"]
SIZES = {
    "even": ((8, 8), 2, 12, 10, 7, 2, 3, 1),
    "odd, in colour": ((6, 4), 2, 5, 3, 9, 3, 4, 3),
    "one token, one channel": ((4, 4), 4, 1, 1, 1, 1, 2, 1),
    "patches of 3": ((9, 3), 3, 16, 8, 8, 1, 10, 2),
}
N = 7


def make(sizes, real=torch.float32, **options):
    """A model with weights of every size, images and labels."""
    torch.manual_seed(0)
    model = MLPMixer(n_hidden=1, **dict(zip(FIELDS, sizes, strict=True)), **options).to(real)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    images = torch.randint(0, 256, (N, *model.image_shape), dtype=torch.uint8)
    return model, images, torch.randint(0, model.config["n_output"], (N,))


def load(engine, model, images, labels, batch=16, **recipe):
    """Put a model and its images into the engine."""
    assert engine.configure(model.config, batch) == model.n_parameters
    engine.set_recipe(n_train=N, batch_size=N, **recipe)
    engine.put(images, labels)
    engine.c.start()
    engine.params[:] = torch.cat([p.detach().flatten() for p in model.parameters()]).numpy()


def normalised(images, real):
    return (images.to(real) / 255 - 0.5) / 0.25


@pytest.mark.parametrize("norm", ["tokens_channels", "channels"])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("channel_mixing", ["mlp", "none"])
@pytest.mark.parametrize("token_mixing", TOKEN_MIXINGS)
def test_answers_and_gradients_are_those_of_torch(native, token_mixing, channel_mixing, sizes, norm):
    gelu = "erf" if sizes[2] % 2 else "tanh"
    options = dict(token_mixing=token_mixing, channel_mixing=channel_mixing, norm=norm, gelu=gelu)
    model, images, labels = make(sizes, torch.float64, **options)
    logits = model(normalised(images, torch.float64))
    loss = F.cross_entropy(logits, labels, label_smoothing=0.1)
    loss.backward()
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    largest = max(g.abs().max().item() for g in gradients)
    for batch in (3, 16):  # several passes for a step, and one
        load(native, model, images, labels, batch, label_smoothing=0.1)
        native.c.evaluate(0, N)
        shares = native.table("shares", N * logits.shape[1], real=np.float32).reshape(N, -1)
        assert np.abs(shares - logits.softmax(1).detach().numpy()).max() < 2e-6
        assert native.c.train_step()
        assert native.c.loss() / N == pytest.approx(loss.item(), rel=1e-5)
        found = torch.tensor(native.grads).split([p.numel() for p in model.parameters()])
        for (name, _), gradient, own in zip(model.named_parameters(), gradients, found, strict=True):
            # A gradient whose parts cancel is known to the rounding of these parts, which the largest one bounds.
            difference = (gradient.flatten() - own).abs().max().item()
            assert difference <= max(1e-4 * gradient.abs().max().item(), 1e-5 * largest), name


@pytest.mark.parametrize("token_mixing", TOKEN_MIXINGS)
def test_gradients_are_finite_differences(native64, token_mixing):
    model, images, labels = make(SIZES["odd, in colour"], torch.float64, token_mixing=token_mixing)
    load(native64, model, images, labels)
    before = native64.params.copy()
    assert native64.c.train_step()
    gradients = native64.grads.copy()
    frozen = [not p.requires_grad for p in model.parameters() for _ in range(p.numel())]

    def loss_at(i, change):
        native64.c.start()
        native64.params[:] = before
        native64.params[i] += change
        native64.c.train_step()
        return native64.c.loss() / N

    for i in range(0, len(before), max(1, len(before) // 60)):
        slope = (loss_at(i, 1e-5) - loss_at(i, -1e-5)) / 2e-5
        assert gradients[i] == pytest.approx(0 if frozen[i] else slope, abs=1e-8, rel=1e-5)


@pytest.mark.parametrize("by_sgd", [False, True])
@pytest.mark.parametrize("token_mixing", TOKEN_MIXINGS)
def test_a_hundred_steps_have_the_losses_of_torch(native, token_mixing, by_sgd):
    model, images, labels = make(SIZES["even"], token_mixing=token_mixing)
    recipe = dict(lr=0.1 if by_sgd else 3e-3, weight_decay=0.1, warm_up=0.1, clip=0.5, label_smoothing=0.1)
    load(native, model, images, labels, by_sgd=int(by_sgd), n_steps=100, **recipe)
    linear = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Linear)}
    own = [p for name, p in model.named_parameters() if name.rsplit(".", 1)[-1] in ("kernel", "down", "across")]
    decayed = [p for p in model.parameters() if id(p) in linear | {id(p) for p in own}]
    others = [p for p in model.parameters() if id(p) not in {id(q) for q in decayed}]
    kind = torch.optim.SGD if by_sgd else torch.optim.AdamW
    optimiser = kind([dict(params=decayed, weight_decay=0.1), dict(params=others, weight_decay=0.0)], lr=recipe["lr"])
    before = 0.0
    for step in range(100):
        for group in optimiser.param_groups:
            group["lr"] = recipe["lr"] * lr_factor(step, 100, 0.1)
        assert native.c.rate() == pytest.approx(group["lr"], rel=1e-6)
        loss = F.cross_entropy(model(normalised(images, torch.float32)), labels, label_smoothing=0.1)
        optimiser.zero_grad()
        loss.backward()
        # SGD decays here after the gradient is clipped, as AdamW does.
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimiser.step()
        assert native.c.train_step()
        assert native.c.loss() / N == pytest.approx(loss.item(), rel=1e-3)
        before = before or loss.item()
    assert loss.item() < 0.9 * before  # it has learnt


def pcg32(seed: int, stream: int):
    """The generator pcg32 of O'Neill, 2014: its numbers of 32 bits."""
    state, step = 0, stream << 1 | 1
    for i in range(10**9):
        old, state = state, (state * 6364136223846793005 + step) % 2**64
        if i == 0:
            state = (state + seed) % 2**64
        if i > 1:
            mixed, turn = (old >> 18 ^ old) >> 27 & 0xFFFFFFFF, old >> 59
            yield (mixed >> turn | mixed << (-turn & 31)) & 0xFFFFFFFF


def test_weights_are_drawn_as_the_source_says(native64):
    model, images, labels = make(SIZES["even"])
    load(native64, model, images, labels, seed=5)
    native64.c.start()
    numbers, at = pcg32(5, 0), 0
    for name, parameter in model.named_parameters():
        n = parameter.numel()
        drawn = native64.params[at : at + n]
        at += n
        if "norm" in name:
            assert (drawn == (1 if name.endswith("weight") else 0)).all()
            continue
        bound = dict(model.named_parameters())[name.replace("bias", "weight")].shape[1] ** -0.5
        expected = [bound * (2 * (next(numbers) >> 8) / 2**24 - 1) for _ in range(n)]
        np.testing.assert_allclose(drawn, expected, rtol=1e-6, atol=1e-7)


def test_random_changes_are_small_and_follow_from_the_seed(native64):
    model, images, labels = make(SIZES["even"])
    patches = []
    for seed, changes in ((1, 0), (1, 1), (1, 1), (2, 1)):
        load(native64, model, images, labels, seed=seed, random_changes=changes)
        assert native64.c.train_step()
        patches.append(native64.table("patches", images.numel()).copy())
    still, one, again, other = patches
    assert (one == again).all()
    assert (one != other).any()
    assert 0.1 < np.abs(one - still).mean() < 2


def test_a_loss_that_is_no_number_stops(native):
    model, images, labels = make(SIZES["even"])
    load(native, model, images, labels)
    native.params[:] = np.nan
    assert native.c.train_step() == 0
    assert native.c.steps() == 0
