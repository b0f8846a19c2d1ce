"""The engine in C, compiled natively: against PyTorch, against finite differences, and with its own random numbers."""

import numpy as np
import pytest
import torch

from mixer import TOKEN_MIXINGS

SIZES = {
    "even": ((8, 8), 2, 12, 10, 7, 2, 3, 1),
    "odd, in colour": ((6, 4), 2, 5, 3, 9, 3, 4, 3),
    "one token, one channel": ((4, 4), 4, 1, 1, 1, 1, 2, 1),
    "patches of 3": ((9, 3), 3, 16, 8, 8, 1, 10, 2),
}
N = 7


def load(engine, model, images, labels, batch=16, **recipe):
    """Put a model and its images into the engine."""
    assert engine.configure(model.config, batch) == model.n_parameters
    engine.set_recipe(n_train=N, batch_size=N, **recipe)
    engine.put(images, labels)
    engine.c.start()
    engine.params[:] = torch.cat([p.detach().flatten() for p in model.parameters()]).numpy()


@pytest.mark.parametrize("norm", ["tokens_channels", "channels"])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("channel_mixing", ["mlp", "none"])
@pytest.mark.parametrize("token_mixing", TOKEN_MIXINGS)
def test_answers_and_gradients_are_those_of_torch(
    native, make, torch_pass, check_gradients, token_mixing, channel_mixing, sizes, norm
):
    gelu = "erf" if sizes[2] % 2 else "tanh"
    options = dict(token_mixing=token_mixing, channel_mixing=channel_mixing, norm=norm, gelu=gelu)
    model, images, labels = make(sizes, torch.float64, **options)
    logits, loss, gradients = torch_pass(model, images, labels)
    for batch in (3, 16):  # several passes for a step, and one
        load(native, model, images, labels, batch, label_smoothing=0.1)
        native.c.evaluate(0, N)
        shares = native.table("shares", N * logits.shape[1], real=np.float32).reshape(N, -1)
        assert np.abs(shares - logits.softmax(1).detach().numpy()).max() < 2e-6
        assert native.c.train_step()
        assert native.c.loss() / N == pytest.approx(loss.item(), rel=1e-5)
        check_gradients(model, gradients, native.grads)


@pytest.mark.parametrize("token_mixing", TOKEN_MIXINGS)
def test_gradients_are_finite_differences(native64, make, token_mixing):
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
def test_a_hundred_steps_have_the_losses_of_torch(native, make, torch_steps, token_mixing, by_sgd):
    model, images, labels = make(SIZES["even"], token_mixing=token_mixing)
    recipe = dict(lr=0.1 if by_sgd else 3e-3, weight_decay=0.1, warm_up=0.1, clip=0.5, label_smoothing=0.1)
    load(native, model, images, labels, by_sgd=int(by_sgd), n_steps=100, **recipe)
    losses = []
    for lr, loss in torch_steps(model, images, labels, [torch.arange(N)] * 100, 100, by_sgd, **recipe):
        losses.append(loss)
        assert native.c.rate() == pytest.approx(lr, rel=1e-6)
        assert native.c.train_step()
        assert native.c.loss() / N == pytest.approx(loss, rel=1e-3)
    assert losses[-1] < 0.9 * losses[0]  # it has learnt


def test_weights_are_drawn_as_the_source_says(native64, make, pcg32):
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


def test_random_changes_are_small_and_follow_from_the_seed(native64, make):
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


def test_a_loss_that_is_no_number_stops(native, make):
    model, images, labels = make(SIZES["even"])
    load(native, model, images, labels)
    native.params[:] = np.nan
    assert native.c.train_step() == 0
    assert native.c.steps() == 0
