"""The loop: what it computes, that it learns, and that it continues bit for bit."""

import copy
import json
import math
import re
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mixer import analysis, evaluate, fit, predict, to_convolution
from mixer.cli.state import restore, state_of
from mixer.data import Split, load
from mixer.devices import choose_device, choose_precision
from mixer.recipe import RECIPES, Muon, Recipe, choose_recipe, make_optimisers, orthogonalise, parameter_groups
from mixer.regularisation import seeded, stochastic_depth
from mixer.training import Trainer

AFFINE = Recipe(3, 8, 1e-2, weight_decay=0.1, warm_up=0.2, label_smoothing=0.1, clip=0.5, affine=1.0, ema=0.9)
PHOTOGRAPHS = replace(
    AFFINE, padding=1, flip=True, random_augment=True, cutmix=0.5, drop_path=0.5, muon_lr=0.02, affine=0.0
)


@pytest.fixture(scope="session")
def trainer(small_data, small_model):
    def make(recipe, seed=1, model=None, **options):
        """A run on small images; where the recipe crops, they count as photographs."""
        data = small_data(name="folder" if recipe.padding else "small")
        return Trainer(model or small_model(), data, recipe, seed, "cpu", "fp32", **options)

    return make


def test_the_seed_recipe_is_plain_adam(small_model, small_data, trainer):
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


def test_sgd_is_plain_gradient_descent(small_model, trainer):
    """Each weight less its gradient times the rate, after it has shrunk by the decay; biases do not shrink."""
    recipe = Recipe(1, 40, 0.1, "sgd", weight_decay=0.5)
    model = small_model()
    run = trainer(recipe, model=model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    list(run)  # one step, as a batch is all images
    decayed = {id(p) for p in parameter_groups(model, 0.5)[0]["params"]}
    for name, p in model.named_parameters():
        kept = 1 - 0.1 * 0.5 if id(p) in decayed else 1
        torch.testing.assert_close(p.detach(), kept * before[name] - 0.1 * p.grad)
    assert len(decayed) == 6 and any(p.grad.abs().max() > 1e-3 for p in model.parameters())


def test_seed_recipe_is_that_of_the_origin():
    seed = RECIPES["seed"]
    assert (seed.lr, seed.batch_size, seed.n_epochs) == (1e-3, 256, 20)
    assert vars(seed) == vars(Recipe(20, 256, 1e-3))
    plain = (seed.weight_decay, seed.warm_up, seed.clip, seed.label_smoothing, seed.ema, seed.muon_lr)
    assert plain == (0, None, None, 0, 0, None)
    assert not (seed.padding or seed.flip or seed.affine or seed.random_augment or seed.cutmix or seed.drop_path)


@pytest.mark.parametrize(
    "recipe", [Recipe(30, 16, 1e-2), choose_recipe("strong", n_epochs=30, batch_size=16, padding=0)]
)
def test_it_learns(recipe, trainer):
    history = list(trainer(recipe))
    assert [record["epoch"] for record in history] == list(range(1, 31))
    assert history[-1]["validation_accuracy"] > 0.9 > history[0]["validation_accuracy"]
    assert history[-1]["train_loss"] < history[0]["train_loss"]
    assert all(math.isfinite(value) for record in history for value in record.values())


def test_record_of_the_first_epoch_is_true(small_model, small_data, trainer):
    """With one batch and a vanishing rate the record must be what evaluate gives for the untrained model."""
    model, data = small_model(), small_data()
    before = evaluate(model, data, data.train)
    record = next(iter(trainer(Recipe(1, 40, lr=1e-12), model=model)))
    assert record["train_loss"] == pytest.approx(before["loss"], abs=1e-5)
    assert record["train_accuracy"] == pytest.approx(before["accuracy"], abs=1e-6)
    assert record["validation_loss"] == pytest.approx(evaluate(model, data, data.validation)["loss"], abs=1e-6)


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


SGD = Recipe(3, 8, 0.1, "sgd", weight_decay=0.1)


@pytest.mark.parametrize(
    "recipe", [Recipe(3, 8), SGD, AFFINE, PHOTOGRAPHS], ids=["seed", "sgd", "affine", "photographs"]
)
@pytest.mark.parametrize("stop_at", [1, 4, 5, 7, 10, 14])
def test_a_run_stopped_at_any_step_continues_bit_for_bit(recipe, stop_at, trainer):
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
    tensors, numbers = state_of(first)
    second = trainer(recipe, model=first.model)
    restore(second, copy.deepcopy(tensors), numbers)
    late = list(second)
    assert torch.equal(weights(second.model), weights(unbroken.model))
    keys = ["epoch", "train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "lr"]
    assert [[r[k] for k in keys] for r in early + late] == [[r[k] for k in keys] for r in records]


def test_the_seed_decides_and_nothing_else_does(trainer):
    one, two, other = trainer(PHOTOGRAPHS), trainer(PHOTOGRAPHS), trainer(PHOTOGRAPHS, seed=2)
    torch.manual_seed(123)
    expected = torch.rand(1)
    torch.manual_seed(123)
    list(one)
    assert torch.rand(1) == expected  # the caller's random numbers are untouched
    torch.manual_seed(456)
    list(two)
    list(other)
    assert torch.equal(weights(one.model), weights(two.model))
    assert not torch.equal(weights(one.model), weights(other.model))


def test_every_step_draws_its_own_augmentation(monkeypatch, trainer):
    seeds = []

    def record(images, generator, *changes):
        seeds.append(generator.initial_seed())
        return images

    monkeypatch.setattr("mixer.regularisation.augment", record)
    list(trainer(AFFINE))
    assert len(seeds) == len(set(seeds)) == 15


def test_digits_are_turned_and_photographs_cropped_and_mirrored(monkeypatch, small_model, small_data):
    changes = []

    def record(images, generator, *change):
        changes.append(change)
        return images

    monkeypatch.setattr("mixer.regularisation.augment", record)
    recipe = Recipe(1, 40, padding=2, flip=True, affine=0.5)
    for name in ("digits", "cifar10"):
        list(Trainer(small_model(), small_data(name=name), recipe, 1, "cpu", "fp32"))
    assert changes == [(0, False, 0.5), (2, True, 0.0)]


def test_the_model_is_the_running_mean_of_what_is_trained(trainer):
    run = trainer(AFFINE)
    mean = weights(run.model).clone()
    assert run.learner is not run.model
    original = run.train_step

    def followed(images, labels):
        nonlocal mean
        result = original(images, labels)
        kept = min(0.9, run.step / (run.step + 9))
        mean = kept * mean + (1 - kept) * weights(run.learner)
        return result

    run.train_step = followed
    list(run)
    assert torch.allclose(weights(run.model), mean, atol=1e-6)
    assert not torch.allclose(weights(run.model), weights(run.learner), atol=1e-3)


def test_stochastic_depth_skips_blocks_keeps_their_mean_and_ends(small_model):
    model, images = small_model(n_layers=2).train(), torch.randn(1, 1, 4, 4).expand(4000, -1, -1, -1)
    whole = model.forward_intermediates(images)[1]
    seen = []
    handle = model.layers[1].channel_mixing.register_forward_pre_hook(lambda block, inputs: seen.append(inputs[0]))
    torch.manual_seed(0)
    with stochastic_depth(model, 0.8):
        model(images)
        model.eval()
        assert torch.allclose(model(images), model.train().forward_intermediates(images)[0], atol=1e-6)
    handle.remove()
    assert not any(len(block._forward_hooks) for block in model.modules())
    tokens = whole["tokens"]
    skipped = torch.isclose(seen[0], tokens, atol=1e-7).flatten(1).all(dim=1).float().mean()
    assert skipped == pytest.approx(0.2 * 0.4 * 0.6, abs=0.02)  # all three blocks before it
    with stochastic_depth(model, 0.8):
        update = model.layers[1].channel_mixing(tokens) - tokens
    expected = model.layers[1].channel_mixing(tokens) - tokens
    assert (update.flatten(1).abs().sum(dim=1) == 0).float().mean() == pytest.approx(0.8, abs=0.03)
    assert torch.allclose(update.mean(dim=0), expected.mean(dim=0), atol=0.15 * expected.abs().max().item())


def test_muon_trains_the_mixing_matrices_and_adam_the_rest(small_model):
    model = small_model()
    muon, adam = make_optimisers(model, replace(RECIPES["strong"], muon_lr=0.02), fused=True)
    names = {id(p): name for name, p in model.named_parameters()}
    by_muon = {names[id(p)] for group in muon.param_groups for p in group["params"]}
    by_adam = {names[id(p)] for group in adam.param_groups for p in group["params"]}
    assert by_muon == {f"layers.0.{block}_mixing.fc{i}.weight" for block in ("token", "channel") for i in (1, 2)}
    assert by_adam == set(names.values()) - by_muon
    assert all(group["weight_decay"] == 0.2 for group in muon.param_groups)


def test_muon_takes_the_steps_of_pytorchs_but_with_float32():
    """PyTorch's rounds to the 8 bits of bfloat16 and treats matrices one by one; ours stacks those of one shape."""
    shapes = [(6, 9), (9, 6), (6, 9), (7, 7)]
    ours, theirs = ([nn.Parameter(torch.ones(shape)) for shape in [*shapes, (6, 9)]] for _ in range(2))
    settings = dict(lr=0.1, weight_decay=0.5, momentum=0.8)
    optimisers = Muon(ours, **settings), torch.optim.Muon(theirs, **settings)
    noise = seeded(0)
    for _ in range(4):
        for a, b, shape in zip(ours, theirs, shapes, strict=False):  # the last one has no gradient and stays as it is
            a.grad = torch.randn(shape, generator=noise)
            b.grad = a.grad.clone()
        for optimiser in optimisers:
            optimiser.step()
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).norm() <= 0.01 * (b - 1).norm()
        assert torch.equal(a, torch.ones_like(a)) == (a.grad is None)
    found, expected = (optimiser.state_dict() for optimiser in optimisers)
    assert found["param_groups"] == expected["param_groups"]
    assert found["state"].keys() == expected["state"].keys()
    for i, state in expected["state"].items():
        assert torch.allclose(found["state"][i]["momentum_buffer"], state["momentum_buffer"])


def test_muon_computes_with_float32_what_bfloat16_cannot_tell():
    matrix = torch.linalg.qr(torch.randn(8, 8, generator=seeded(1)))[0]
    found = orthogonalise(matrix[None], (15 / 8, -10 / 8, 3 / 8), 12, 1e-7)[0]  # coefficients that reach 1
    assert found.dtype == torch.float32
    assert (found - matrix).abs().max() < 1e-5


def test_the_convolutional_twin_trains_by_the_strong_recipe(small_model, trainer):
    run = trainer(choose_recipe("strong", n_epochs=30, batch_size=16, padding=0), model=to_convolution(small_model()))
    assert list(run)[-1]["validation_accuracy"] > 0.8


def test_compiled_training_gives_the_same_weights(monkeypatch, trainer):
    original, compiled = torch.compile, []
    monkeypatch.setattr(torch, "compile", lambda model: compiled.append(model) or original(model, backend="eager"))
    plain, fast = trainer(AFFINE), trainer(AFFINE, compile=True)
    list(plain)
    list(fast)
    assert compiled == [fast.learner]
    assert torch.allclose(weights(plain.model), weights(fast.model), atol=1e-5)


def test_rate_warms_up_and_falls(trainer):
    run = trainer(Recipe(10, 8, lr=1.0, warm_up=0.2))
    rates = [run.learning_rate(step) for step in range(50)]
    assert rates[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert rates[30] == pytest.approx(0.5)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert 0 < rates[-1] < 0.01


def test_only_the_weights_of_linear_layers_decay(small_model):
    model = small_model()
    decayed, others = (group["params"] for group in parameter_groups(model, 0.1))
    names = {id(p): name for name, p in model.named_parameters()}
    assert all("norm" not in names[id(p)] and names[id(p)].endswith("weight") for p in decayed)
    assert len(decayed) == 6
    assert len(decayed) + len(others) == len(list(model.parameters()))


def test_predict_leaves_the_model_as_it_was(small_model, small_data):
    model, data = small_model().train(), small_data()
    logits = predict(model, data, data.test, batch_size=5)
    assert model.training
    assert torch.allclose(logits, model.eval()(data.normalise(data.test.images)), atol=1e-6)
    result = evaluate(model, data, data.test)
    assert result["accuracy"] == pytest.approx((logits.argmax(1) == data.test.labels).float().mean().item())
    assert result["loss"] == pytest.approx(F.cross_entropy(logits, data.test.labels).item())


def test_predict_leaves_a_frozen_module_in_its_own_mode_and_refuses_what_it_cannot_use(small_model, small_data):
    model, data = small_model().train(), small_data()
    model.layers[0].eval()
    before = [module.training for module in model.modules()]
    predict(model, data, data.test)
    assert [module.training for module in model.modules()] == before
    for batch_size in (0, -1, 1.5):
        with pytest.raises(ValueError, match=f"batch_size is {batch_size}; it must be a whole number of at least 1"):
            predict(model, data, data.test, batch_size)
    with pytest.raises(ValueError, match="weights of float16; make them float32"):
        predict(model.half(), data, data.test)


@pytest.mark.parametrize("n_output", [3, 5])
def test_cutmix_takes_a_model_of_any_number_of_outputs(n_output, small_model, small_data):
    data = replace(small_data(), class_names=["top", "second", "third", "fourth"])
    for model in (small_model(n_output=n_output), nn.Sequential(nn.Flatten(), nn.Linear(16, n_output))):
        assert fit(model, data, n_epochs=1, cutmix=1.0, device="cpu")[0]["train_loss"] < math.inf


def test_a_loss_that_is_no_number_is_said(trainer):
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


def test_bf16_trains_on_the_cpu(small_model, small_data):
    run = Trainer(small_model(), small_data(), Recipe(20, 16, 1e-2), 1, "cpu", "bf16")
    assert list(run)[-1]["validation_accuracy"] > 0.9


def test_bad_choices(small_model, small_data):
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
    bad = dict(
        lr=[0, True, math.nan],
        n_epochs=[0, 1.5],
        batch_size=[-1],
        weight_decay=[-1, math.nan],
        padding=[-1, 1.5, 4.0, math.inf],
    )
    bad |= dict(clip=[0, -1], warm_up=[-1, 2], label_smoothing=[-1, 1], affine=[-1], cutmix=[-0.1, 1.1])
    bad |= dict(drop_path=[-1, 1], ema=[1], muon_lr=[0, math.inf], flip=["no", 1], random_augment=[None])
    for name, values in bad.items():
        for value in values:
            with pytest.raises(ValueError, match=re.escape(f"{name} is {value!r}; it must be")):
                fit(small_model(), small_data(), **{name: value})
    with pytest.raises(ValueError, match="optimiser is 'lion'; choose one of adam, sgd"):
        fit(small_model(), small_data(), optimiser="lion")
    with pytest.raises(ValueError, match="epochs is not part of a recipe; choose from n_epochs"):
        fit(small_model(), small_data(), epochs=3)


@pytest.mark.slow
def test_digits_reach_98_percent(small_model):
    """The default run of the command, as a chapter would call it."""
    digits = load("digits")
    model = small_model(1, n_layers=3, n_channel=48, n_hidden=64, n_output=10, image_size=8)
    fit(model, digits, n_epochs=30, batch_size=64, lr=3e-3, device="cpu", precision="fp32")
    assert evaluate(model, digits, digits.test)["accuracy"] >= 0.98


def test_the_running_mean_takes_over_the_statistics_of_batch_norm(small_data, trainer):
    data = small_data()
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))
    trainer = Trainer(model, data, Recipe(2, 8, 1e-2, ema=0.9))
    list(trainer)
    assert torch.equal(model[1].running_mean, trainer.learner[1].running_mean)
    assert model[1].running_mean.abs().sum() > 0


def test_a_run_goes_on_in_another_precision(trainer):
    """Begun in float32, resumed in float16, whose gradients are scaled, and back: Colab's GPUs differ."""
    plain, scaled = (trainer(replace(AFFINE, n_epochs=4)) for _ in range(2))
    scaled.scaler = torch.amp.GradScaler("cpu")  # as choose_precision("auto") makes it on a GPU before Ampere
    for run, other in ((plain, scaled), (scaled, plain)):
        epoch = next(iter(run))["epoch"]
        tensors, numbers = state_of(run)
        restore(other, copy.deepcopy(tensors), json.loads(json.dumps(numbers)))
        assert next(iter(other))["epoch"] == epoch + 1
    assert scaled.scaler.get_scale() == 65536


@pytest.mark.parametrize("clip", [None, 1.0])
def test_float16_that_overflows_in_one_optimiser_stops_the_step_of_all(trainer, clip):
    run = trainer(replace(AFFINE, clip=clip, muon_lr=0.02))
    run.scaler = torch.amp.GradScaler("cpu")
    before = copy.deepcopy(run.learner.state_dict())
    hook = run.learner.per_patch.linear.weight.register_hook(lambda gradient: gradient * math.inf)
    run.train_step(run.data.train.images[:8], run.data.train.labels[:8])
    hook.remove()
    assert {name for name, weight in run.learner.state_dict().items() if not torch.equal(weight, before[name])} == set()
    assert run.scaler.get_scale() == 32768
    run.train_step(run.data.train.images[:8], run.data.train.labels[:8])
    assert all(not torch.equal(p, before[name]) for name, p in run.learner.named_parameters())


def test_each_process_draws_for_itself_which_blocks_are_skipped(trainer):
    drawn = []
    for rank in (0, 1):
        run = trainer(replace(AFFINE, drop_path=0.5))
        run.rank, run.n_processes = rank, 2
        skipped = []
        with stochastic_depth(run.learner, 0.5):
            for layer in run.learner.layers:
                layer.token_mixing.register_forward_hook(
                    lambda block, inputs, output, skipped=skipped: skipped.append((output == inputs[0]).all(dim=(1, 2)))
                )
            run.learner.train()
            run.train_step(run.data.train.images[:16], run.data.train.labels[:16])
        drawn.append(torch.cat(skipped).tolist())
    assert len(drawn[0]) == len(drawn[1]) >= 8
    assert drawn[0] != drawn[1] and True in drawn[0]


def test_a_network_without_layers_cannot_skip_them(small_data):
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    with pytest.raises(
        ValueError, match=r"^drop_path skips the blocks of mixer layers; choose 0 for a network without"
    ):
        fit(network, small_data(), drop_path=0.5)


WHOLE = choose_recipe("strong", n_epochs=1, batch_size=8, random_augment=True, cutmix=1.0, drop_path=0.3)


@pytest.mark.parametrize("recipe", [Recipe(1, 8), WHOLE, replace(WHOLE, padding=0)], ids=["seed", "strong", "affine"])
@pytest.mark.parametrize("twin", [False, True])
def test_no_tensor_of_a_step_is_left_on_the_cpu(monkeypatch, recipe, twin, small_model, small_data):
    """A step on torch's meta device, which refuses tensors of another device, as a GPU would."""
    monkeypatch.setattr("mixer.training.choose_device", torch.device)
    monkeypatch.setattr("mixer.training.autocast", lambda *_: nullcontext())  # torch has none for meta
    model = to_convolution(small_model()) if twin else small_model()
    run = Trainer(model, small_data(name="folder" if recipe.padding else "small"), recipe, 1, "meta", "fp32")
    for images, labels in run.data.train.batches(torch.arange(16), recipe.batch_size):
        with stochastic_depth(run.learner, recipe.drop_path):
            assert run.train_step(images, labels).device.type == "meta"
    restore(run, *state_of(run))
    assert {t.device.type for t in run.model.parameters()} == {"meta"}


@pytest.mark.parametrize("shuffle", ["none", "patches", "global"])
def test_prediction_and_analysis_follow_the_device(monkeypatch, shuffle, small_model, small_data):
    monkeypatch.setattr("mixer.training.autocast", lambda *_: nullcontext())
    data, model = small_data().shuffled(shuffle, 2), small_model().to("meta")
    for network in (model, to_convolution(model)):
        assert predict(network, data, data.test).device.type == "meta"
    logits, results = model.forward_intermediates(data.normalise(data.test.images.to("meta")))
    inputs, outputs = analysis.token_maps(model, 0)
    found = [
        logits,
        *results.values(),
        inputs,
        outputs,
        analysis.mean_frequency(inputs),
        model.patches.inverse(results["patches"], 4),
    ]
    assert {t.device.type for t in found} == {"meta"}


@pytest.fixture(scope="session")
def changed(small_data):
    def make(part, **changes):
        """The small data set with one split changed."""
        data = small_data()
        split = getattr(data, part)
        new = Split(changes.get("images", lambda x: x)(split.images), changes.get("labels", lambda x: x)(split.labels))
        return replace(data, **{part: new})

    return make


WRONG = {
    "floats from 0 to 1": (dict(images=lambda x: x / 255), "the images are float32"),
    "another size": (dict(images=lambda x: x[:, :, 1:]), r"the images are uint8 \[N, \*\[1, 3, 4\]\]"),
    "too few labels": (dict(labels=lambda x: x[1:]), "labels; it needs one label for each"),
    "no images": (dict(images=lambda x: x[:0], labels=lambda x: x[:0]), "a split has 0 images and 0 labels"),
    "a label that means none": (dict(labels=lambda x: x - 100), "the labels of a split are torch.int64 from -100"),
    "a class too many": (dict(labels=lambda x: x + 1), "to 3; they must be torch.int64 from 0 to 2"),
    "labels of bytes": (dict(labels=lambda x: x.byte()), "the labels of a split are torch.uint8"),
    "labels of shares": (dict(labels=lambda x: x.float()), "the labels of a split are torch.float32"),
}


@pytest.mark.parametrize("part", ["train", "validation", "test"])
@pytest.mark.parametrize(("changes", "sentence"), WRONG.values(), ids=WRONG)
def test_data_that_do_not_fit_are_refused_before_anything_is_learned(part, changes, sentence, small_model, changed):
    data, model = changed(part, **changes), small_model()
    before = weights(model).clone()
    with pytest.raises(ValueError, match=sentence):
        fit(model, data, n_epochs=1)
    with pytest.raises(ValueError, match=sentence):
        evaluate(model, data, getattr(data, part))
    assert torch.equal(weights(model), before)


def test_a_model_that_does_not_fit_is_refused(small_model, small_data):
    data = small_data()
    for model, sentence in [
        (small_model(n_output=2), "from 0 to 1"),
        (small_model(image_size=6), r"must be uint8 \[N, \*\[1, 6, 6\]\]"),
        (small_model().double(), "weights of float64; make them float32"),
        (small_model().half(), "weights of float16"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            fit(model, data, n_epochs=1)
        with pytest.raises(ValueError, match=sentence):
            evaluate(model, data, data.test)
    with pytest.raises(ValueError, match="no weight can learn"):
        fit(small_model().requires_grad_(False), data, n_epochs=1)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context, pytest.raises(ValueError, match="no weight can learn: train outside no_grad"):
            fit(small_model(), data, n_epochs=1)
    with torch.inference_mode():
        model = small_model()
    with pytest.raises(ValueError, match="no weight can learn"):
        fit(model, data, n_epochs=1)
    frozen = small_model()
    frozen.per_patch.requires_grad_(False)
    assert len(fit(frozen, data, n_epochs=1, device="cpu", precision="fp32")) == 1


def test_a_seed_of_numpy_is_the_same_seed(trainer):
    runs = [trainer(PHOTOGRAPHS, seed=seed) for seed in (3, np.int64(3))]
    for run in runs:
        list(run)
    assert torch.equal(*(weights(run.model) for run in runs))
