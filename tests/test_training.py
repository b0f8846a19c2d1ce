"""The loop: what it computes, that it learns, and that it continues bit for bit."""

import math

import pytest
import torch
import torch.nn.functional as F

from mixer import evaluate, fit, predict
from mixer.data import load
from mixer.training import RECIPES, Recipe, Trainer, choose_device, choose_precision, choose_recipe, parameter_groups
from tests.helpers import small_data, small_model

STRONG = Recipe(3, 8, 1e-2, weight_decay=0.1, warm_up=0.2, label_smoothing=0.1, clip=0.5, padding=1)


def trainer(recipe, seed=1, model=None):
    return Trainer(model or small_model(), small_data(), recipe, seed, "cpu", "fp32")


def test_the_seed_recipe_is_plain_adam():
    """The published recipe by PyTorch's own Adam, step by step, on the same batches."""
    ours, theirs = small_model(), small_model()
    data = small_data()
    run = trainer(Recipe(n_epochs=2, batch_size=16), model=ours)
    adam = torch.optim.Adam(theirs.parameters(), lr=1e-3)
    seen = []
    original = run.train_step

    def recorded(images, labels):
        seen.append((images, labels))
        return original(images, labels)

    run.train_step = recorded
    list(run)
    assert [len(labels) for _, labels in seen] == [16, 16, 8] * 2
    first_epoch = torch.cat([images for images, _ in seen[:3]]).flatten(1)
    assert torch.equal(first_epoch.sort(dim=0).values, data.train.images.flatten(1).sort(dim=0).values)
    assert not torch.equal(seen[0][0], seen[3][0])  # a new order in every epoch
    for images, labels in seen:
        adam.zero_grad()
        F.cross_entropy(theirs(data.normalise(images)), labels).backward()
        adam.step()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_seed_recipe_is_that_of_the_origin():
    seed = RECIPES["seed"]
    assert (seed.lr, seed.batch_size, seed.n_epochs) == (1e-3, 256, 20)
    assert (seed.weight_decay, seed.warm_up, seed.padding, seed.clip, seed.label_smoothing) == (0, None, 0, None, 0)


@pytest.mark.parametrize(
    "recipe", [Recipe(30, 16, 1e-2), choose_recipe("strong", n_epochs=30, batch_size=16, padding=0)]
)
def test_it_learns(recipe):
    history = list(trainer(recipe))
    assert [record["epoch"] for record in history] == list(range(1, 31))
    assert history[-1]["validation_accuracy"] > 0.9 > history[0]["validation_accuracy"]
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    assert all(math.isfinite(value) for record in history for value in record.values())


def test_record_of_the_first_epoch_is_true():
    """With one batch and a vanishing rate the record must be what evaluate gives for the untrained model."""
    model, data = small_model(), small_data()
    before = evaluate(model, data, data.train)
    record = next(iter(trainer(Recipe(1, 40, lr=1e-12), model=model)))
    assert record["train_loss"] == pytest.approx(before["loss"], abs=1e-5)
    assert record["train_accuracy"] == pytest.approx(before["accuracy"], abs=1e-6)
    assert record["validation_loss"] == pytest.approx(evaluate(model, data, data.validation)["loss"], abs=1e-6)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize("recipe", [Recipe(3, 8), STRONG], ids=["seed", "strong"])
@pytest.mark.parametrize("stop_at", [1, 4, 5, 7, 10, 14])
def test_a_run_stopped_at_any_step_continues_bit_for_bit(recipe, stop_at):
    unbroken = trainer(recipe)
    records = list(unbroken)
    first = trainer(recipe)
    original = first.train_step

    def stopping(images, labels):
        first.stop = first.step + 1 == stop_at
        return original(images, labels)

    first.train_step = stopping
    early = list(first)
    assert first.step == stop_at
    tensors, numbers = first.state()
    second = trainer(recipe, model=first.model)
    second.load_state({name: t.clone() for name, t in tensors.items()}, numbers)
    late = list(second)
    assert torch.equal(weights(second.model), weights(unbroken.model))
    keys = ["epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "lr"]
    assert [[r[k] for k in keys] for r in early + late] == [[r[k] for k in keys] for r in records]


def test_the_seed_decides_and_nothing_else_does():
    torch.manual_seed(123)
    one = trainer(STRONG)
    list(one)
    torch.manual_seed(456)
    two = trainer(STRONG)
    list(two)
    other = trainer(STRONG, seed=2)
    list(other)
    assert torch.equal(weights(one.model), weights(two.model))
    assert not torch.equal(weights(one.model), weights(other.model))


def test_every_step_draws_its_own_augmentation(monkeypatch):
    seeds = []

    def record(images, generator, *changes):
        seeds.append(generator.initial_seed())
        return images

    monkeypatch.setattr("mixer.training.augment", record)
    list(trainer(STRONG))
    assert len(seeds) == len(set(seeds)) == 15


def test_rate_warms_up_and_falls():
    run = trainer(Recipe(10, 8, lr=1.0, warm_up=0.2))
    rates = [run.learning_rate(step) for step in range(50)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[30] == pytest.approx(0.5)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.01


def test_only_the_weights_of_linear_layers_decay():
    model = small_model()
    decayed, others = (group["params"] for group in parameter_groups(model, 0.1))
    names = {id(p): name for name, p in model.named_parameters()}
    assert all("norm" not in names[id(p)] and names[id(p)].endswith("weight") for p in decayed)
    assert len(decayed) == 6
    assert len(decayed) + len(others) == len(list(model.parameters()))


def test_predict_leaves_the_model_as_it_was():
    model, data = small_model().train(), small_data()
    logits = predict(model, data, data.test, batch_size=5)
    assert model.training
    assert torch.allclose(logits, model.eval()(data.normalise(data.test.images)), atol=1e-6)
    result = evaluate(model, data, data.test)
    assert result["accuracy"] == pytest.approx((logits.argmax(1) == data.test.labels).float().mean().item())
    assert result["loss"] == pytest.approx(F.cross_entropy(logits, data.test.labels).item())


def test_a_loss_that_is_no_number_is_said():
    with pytest.raises(FloatingPointError, match="the loss is no longer a number in epoch 1; choose a smaller lr"):
        list(trainer(Recipe(1, 8, lr=1e30)))


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)]
)
def test_automatic_precision_on_a_gpu(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert choose_precision("auto", torch.device("cuda")) == expected


@pytest.mark.parametrize("native", [True, False])
def test_automatic_precision_on_a_cpu(monkeypatch, native):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: native)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    assert choose_precision("auto", torch.device("cpu")) == (torch.bfloat16 if native else torch.float32)


def test_bf16_trains_on_the_cpu():
    run = Trainer(small_model(), small_data(), Recipe(20, 16, 1e-2), 1, "cpu", "bf16")
    assert list(run)[-1]["validation_accuracy"] > 0.9


def test_bad_choices():
    with pytest.raises(ValueError, match="device 'tpu' is not known; choose auto, cpu"):
        choose_device("tpu")
    with pytest.raises(ValueError, match="device 'cuda:99' is not on this machine"):
        choose_device("cuda:99")
    with pytest.raises(ValueError, match="precision fp16 needs a cuda device"):
        choose_precision("fp16", torch.device("cpu"))
    with pytest.raises(ValueError, match="precision 'fp8' is not known"):
        choose_precision("fp8", torch.device("cpu"))
    with pytest.raises(ValueError, match="recipe 'best' is not known; choose one of seed, strong"):
        fit(small_model(), small_data(), "best")
    bad = dict(lr=[0, math.nan], n_epochs=[0, 1.5], batch_size=[-1], weight_decay=[-1, math.nan], padding=[-1, 1.5])
    bad |= dict(clip=[0, -1], warm_up=[-1, 2], label_smoothing=[-1, 1])
    for name, values in bad.items():
        for value in values:
            with pytest.raises(ValueError, match=f"{name} is {value}; it must be"):
                fit(small_model(), small_data(), **{name: value})
    with pytest.raises(ValueError, match="epochs is not part of a recipe; choose from n_epochs"):
        fit(small_model(), small_data(), epochs=3)


def test_digits_reach_98_percent():
    """The default run of the command, as a chapter would call it."""
    digits = load("digits")
    model = small_model(1, n_layers=3, n_channel=48, n_hidden=64, n_output=10, image_size=8)
    fit(model, digits, n_epochs=30, batch_size=64, lr=3e-3, device="cpu", precision="fp32")
    assert evaluate(model, digits, digits.test)["accuracy"] >= 0.98
