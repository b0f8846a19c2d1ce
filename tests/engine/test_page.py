"""The engine that is shipped, in Chromium, driven by the code of the figure: its numbers beside those of PyTorch."""

import json
from itertools import product

import pytest
import torch

from _extensions.chromium import write_page
from mixer import TOKEN_MIXINGS, load_data
from mixer.widgets import TrainingLab

SIZES = {
    "multiples of 4": ((8, 8), 2, 12, 8, 4, 2, 3, 1),
    "nothing a multiple of 4, in colour": ((6, 6), 2, 7, 5, 11, 2, 3, 3),
    "one token, one channel": ((4, 4), 4, 1, 1, 1, 1, 2, 1),
    "one channel in colour": ((6, 4), 2, 1, 9, 3, 3, 5, 3),
    "patches of 3": ((9, 3), 3, 16, 8, 8, 1, 10, 2),
}

# The engine of the page's own module, started, as `engine`; and a function that puts a model with its images into it.
START = """async () => {
  const { module } = JSON.parse(document.querySelector("script[type='application/json']").textContent);
  const text = `${module}\\nexport { Engine, bytes };`;
  const { Engine, bytes } = await import(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
  window.engine = await Engine.start(bytes(document.querySelector(".mixer-figure").model.get("engine")));
  window.load = ({ config, params, images, labels, recipe, data }, batch) => {
    engine.configure(config, batch);
    engine.setImages(images, labels);
    engine.setRecipe(recipe, data);
    engine.calls.start();
    if (engine.nParameters !== params.length) throw new Error(`${engine.nParameters} parameters`);
    engine.params.set(params);
  };
}"""
# For each case its logits, and gradients and loss by passes of three images and by a single one.
ONCE = """(cases) => cases.map((one) => {
  const [N, K] = [one.labels.length, one.config.n_output];
  load(one, 16);
  engine.evaluate(0, N, K);
  const logits = Array.from(engine.view(Float32Array, "logits", N * K));
  const passes = [3, 16].map((batch) => {
    load(one, batch);
    if (!engine.calls.train_step()) throw new Error("no step");
    return [engine.calls.loss() / N, Array.from(engine.view(Float32Array, "grads", engine.nParameters))];
  });
  return { logits, passes };
})"""
# Learning rate and loss of so many steps; the engine sums the losses of an epoch.
STEPS = """([one, n]) => {
  load(one, 16);
  const perEpoch = Math.ceil(one.recipe.n_train / one.recipe.batch_size);
  return Array.from({ length: n }, (_, i) => {
    const [rate, before] = [engine.calls.rate(), i % perEpoch ? engine.calls.loss() : 0];
    if (!engine.calls.train_step()) throw new Error("no step");
    return [rate, engine.calls.loss() - before];
  });
}"""


@pytest.fixture
def evaluated(tab, tmp_path):
    """A function that calls a function in the page; all goes as one text, which takes a tenth of the time."""
    page = tab.open(write_page(tmp_path / "page.html", TrainingLab(load_data("digits"))))
    page.evaluate(START)
    return lambda code, given: json.loads(
        page.evaluate(f"(text) => JSON.stringify(({code})(JSON.parse(text)))", json.dumps(given))
    )


def stored(network, recipe, scale):
    """A model, its images and a recipe as JSON."""
    model, images, labels = network
    params = torch.cat([p.detach().flatten() for p in model.parameters()]).tolist()
    data = {name: values[: model.image_shape[0]] for name, values in scale.items()}
    images, labels = images.flatten().tolist(), labels.tolist()
    return dict(config=model.config, params=params, images=images, labels=labels, recipe=recipe, data=data)


def test_answers_and_gradients_are_those_of_torch(evaluated, make, scale, torch_pass, check_gradients):
    recipe = dict(n_train=7, batch_size=7, label_smoothing=0.1)
    names = ["token_mixing", "channel_mixing", "norm", "gelu"]
    choices = [TOKEN_MIXINGS, ["mlp", "none"], ["tokens_channels", "channels"], ["erf", "tanh"]]
    cases = [(sizes, dict(zip(names, chosen, strict=True))) for sizes, *chosen in product(SIZES, *choices)]
    networks = [make(SIZES[sizes], torch.float64, **options) for sizes, options in cases]
    answers = evaluated(ONCE, [stored(network, recipe, scale) for network in networks])
    for case, network, answer in zip(cases, networks, answers, strict=True):
        logits, loss, gradients = torch_pass(*network)
        difference = (torch.tensor(answer["logits"]).view_as(logits) - logits).abs().max()
        assert difference <= 1e-5 * logits.abs().max(), case
        for own_loss, own_gradients in answer["passes"]:
            assert own_loss == pytest.approx(loss.item(), rel=1e-5), case
            check_gradients(network[0], gradients, own_gradients, case)


def batches_of(pcg32, n, size, seed):
    """The indices of each batch, drawn as engine.c says: a shuffle from the end, anew in each epoch."""
    epoch = 0
    while True:
        numbers, order = pcg32(seed, 2 * epoch + 1), list(range(n))
        for i in reversed(range(1, n)):
            j = next(numbers) * (i + 1) >> 32
            order[i], order[j] = order[j], order[i]
        yield from torch.tensor(order).split(size)
        epoch += 1


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_a_hundred_steps_have_the_losses_of_torch(evaluated, make, scale, torch_steps, pcg32, optimiser):
    """The same weights and the same batches, of which the last of an epoch is smaller."""
    rates = dict(lr=3e-3 if optimiser == "adam" else 0.1, weight_decay=0.1, warm_up=0.1, clip=0.5, label_smoothing=0.1)
    recipe = dict(n_train=7, batch_size=3, n_epochs=34, seed=5, optimiser=optimiser, **rates)
    for token_mixing in TOKEN_MIXINGS:
        network = make(SIZES["nothing a multiple of 4, in colour"], token_mixing=token_mixing)
        found = evaluated(STEPS, [stored(network, recipe, scale), 100])
        batches = [batch for batch, _ in zip(batches_of(pcg32, 7, 3, 5), found, strict=False)]
        steps = torch_steps(*network, batches, 34 * 3, optimiser == "sgd", **rates)
        for (lr, loss), (own_lr, own_sum), batch in zip(steps, found, batches, strict=True):
            assert own_lr == pytest.approx(lr, rel=1e-6), token_mixing
            assert own_sum / len(batch) == pytest.approx(loss, rel=1e-3), token_mixing
