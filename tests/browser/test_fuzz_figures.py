"""Damaged states of live figures, one by one and by chance: the figure is shown, or says in a sentence what is wrong.

`make fuzz` draws many more: hypothesis' profile "long".
"""

import copy
import json
import random
import re

import pytest
import torch
from hypothesis import settings

from _extensions.chromium import PAYLOAD, Tab, evaluate_within, write_page
from mixer import Split, shipped_weights
from mixer.data import DataSet
from mixer.widgets import (
    ConvolutionTwin,
    CostExplorer,
    FilterExplorer,
    MixerFlow,
    PatchExplorer,
    ReachExplorer,
    TokenMixingExplorer,
    TrainingLab,
    ValleyExplorer,
)

IS_LONG = settings.get_current_profile_name() == "long"

IMAGES = torch.arange(3 * 64, dtype=torch.uint8).reshape(3, 1, 8, 8)


def stripes() -> DataSet:
    split = Split(IMAGES, torch.tensor([0, 1, 1]))
    return DataSet("stripes", split, split, split, ["first", "others"], [0.5], [0.25], (1, 8, 8))


def lab() -> TrainingLab:
    """A laboratory that trains in a moment, and has kept a run."""
    figure = TrainingLab(stripes(), n_layers=2, n_channel=4, n_hidden=3, n_epochs=2)
    numbers = ["train_loss", "train_accuracy", "validation_loss", "validation_accuracy", "lr", "seconds"]
    history = [{"epoch": epoch, "images_per_second": 99, **dict.fromkeys(numbers, 0.5)} for epoch in (1, 2)]
    figure.runs = [{"settings": figure.settings, "history": history, "test_loss": 0.5, "test_accuracy": 0.5}]
    return figure


def valley() -> ValleyExplorer:
    """A valley with two runs, one of which came to no number."""
    figure = ValleyExplorer(stripes())
    figure.losses = [["adam", 1, 0.01, 0.5], ["sgd", 2, 50.0, None]]
    return figure


FIGURES = {
    "PatchExplorer": lambda: PatchExplorer(IMAGES[0], 2),
    "TokenMixingExplorer": lambda: TokenMixingExplorer(shipped_weights("digits-1"), IMAGES, n_steps=2),
    "MixerFlow": lambda: MixerFlow(shipped_weights("digits-1"), IMAGES, [1, 2, 3]),
    "ConvolutionTwin": lambda: ConvolutionTwin(shipped_weights("digits-1"), IMAGES),
    "ReachExplorer": ReachExplorer,
    "FilterExplorer": lambda: FilterExplorer(IMAGES[0], torch.eye(4), torch.ones(4), [0.5], [0.25]),
    "CostExplorer": CostExplorer,
    "ValleyExplorer": valley,
    "TrainingLab": lab,
}
WRONG = [-1, 0, 0.5, 1e-9, 1e4, 1e8, 1e15, 1e308, None, "word", True, []]  # in the place of a size or a choice
ODD = [*WRONG, 2, "", [1, [2]], {}, {"base64": "AA"}, {"base64": "%"}]
OWN = re.compile(r"This figure cannot come to life: (its|it holds|there is no|a number that|what it holds) [^\n]+")
LIMIT = 5  # seconds; a figure takes some 0.05

# The module, imported once, as m; and the rendering of a state with it, as host.js does.
IMPORT = """async () => {
  const { module } = JSON.parse(document.querySelector("script[type='application/json']").textContent);
  window.Worker = class { postMessage() {} terminate() {} }; // what is trained is not looked at here
  window.m = (await import(URL.createObjectURL(new Blob([module], { type: "text/javascript" })))).default;
}"""
RENDER = """async (stored) => {
  const view = ({ base64 }) => new DataView(Uint8Array.from(atob(base64), (byte) => byte.charCodeAt(0)).buffer);
  const state = Object.fromEntries(Object.entries(stored).map(([k, v]) => [k, v?.base64 === undefined ? v : view(v)]));
  const set = (name, value) => (state[name] = value);
  const el = document.createElement("div");
  document.body.replaceChildren(el);
  window.end?.();
  window.end = await m.render({ model: { get: (name) => state[name], set, on() {}, off() {}, save_changes() {} }, el });
  const said = [...el.querySelectorAll("[role=alert]")].map((p) => p.textContent);
  return [el.querySelectorAll("canvas, svg").length, ...said];
}"""
TRAINED = """() => {
  const { innerText } = document.querySelector(".mixer-figure");
  return innerText.includes("Finished: ") || innerText.includes("Stopped: ");
}"""
TOGETHER = [  # damage in several places, that agree: the products of the sizes are right
    ("PatchExplorer", {"shape": [1e8, 1e8, 0], "image": {"base64": ""}}, "its image is damaged or incomplete"),
    ("PatchExplorer", {"shape": [1, 1e8, 6.4e-7]}, "its image is damaged or incomplete"),
    ("PatchExplorer", {"patch_size": 1.5, "patch_sizes": [1.5]}, "its patch sizes are not those of its image"),
    (
        "TokenMixingExplorer",
        {"geometry.rows": 1e8, "geometry.columns": 1.6e-7},
        "its sizes are not those of its weights",
    ),
    ("TokenMixingExplorer", {"geometry.rows": -4, "geometry.columns": -4}, "its sizes are not those of its weights"),
    (
        "TokenMixingExplorer",
        {"geometry.n_layers": 1.5, "geometry.n_units": 128},
        "its sizes are not those of its weights",
    ),
    ("MixerFlow", {"config.image_size": [1e8, 6.4e-7]}, "its sizes are not those of its weights"),
    ("MixerFlow", {"config.image_size": [-8, -8]}, "its sizes are not those of its weights"),
    (
        "MixerFlow",
        {"tensors.17.0": "layers.1.token_mixing.fc2.bias", "tensors.19.0": "layers.1.token_mixing.fc1.bias"},
        "its sizes are not those of its weights",
    ),
    ("ReachExplorer", {"grid": [1e8, 1e-8]}, "its sizes are damaged or incomplete"),
    ("ReachExplorer", {"grid": [1e8, 1], "token": 1e7}, "its sizes are damaged or incomplete"),
    ("ReachExplorer", {"blocks": ["token"] * 7}, "its blocks are not known or too many"),
    ("FilterExplorer", {"shape": [1, 1e8, 6.4e-7]}, "its sizes are damaged or incomplete"),
    ("FilterExplorer", {"shape": [2, 4, 8], "mean": [0, 0], "std": [1, 1]}, "its sizes are damaged or incomplete"),
    ("FilterExplorer", {"patch_size": 3, "weight": {"base64": ""}}, "its sizes are damaged or incomplete"),
    ("FilterExplorer", {"patch_size": 1, "stride": 1}, "its numbers are damaged or incomplete"),
    ("FilterExplorer", {"stride": 4, "row": 4}, "there is no stride 4"),
    ("FilterExplorer", {"names": ["a"] * 33, "bias": {"base64": ""}}, "its filters are damaged or incomplete"),
    ("FilterExplorer", {"std": [0]}, "its mean and std are damaged or incomplete"),
    ("CostExplorer", {"sizes.image_size": 1e8, "sizes.patch_size": 1e8}, "its sizes are damaged or incomplete"),
    ("CostExplorer", {"sizes.image_size": 1024, "sizes.patch_size": 1}, "its sizes are damaged or incomplete"),
    ("CostExplorer", {"sizes.image_size": 8, "sizes.patch_size": 1.6}, "its sizes are damaged or incomplete"),
    ("CostExplorer", {"setting": "another"}, "there is no setting another"),
    ("CostExplorer", {"settings.0.1.n_channel": 1e9}, "its settings are damaged or incomplete"),
    ("ValleyExplorer", {"shape": [1e8, 1e8, 0], "images": {"base64": ""}}, "its images are damaged or incomplete"),
    ("ValleyExplorer", {"images": {"base64": ""}, "labels": {"base64": ""}}, "its images are damaged or incomplete"),
    ("ValleyExplorer", {"shape": [64, 1, 1], "mean": [0] * 64}, "its images are damaged or incomplete"),
    ("ValleyExplorer", {"n_output": 1}, "its images are damaged or incomplete"),
    ("ValleyExplorer", {"lr": 0.003}, "there is no learning rate 0.003"),
    ("ValleyExplorer", {"seed": 2**31}, "there is no seed 2147483648"),
    ("ValleyExplorer", {"losses.0.2": 0.003}, "its losses are damaged or incomplete"),
    ("ConvolutionTwin", {"grid": [1e8, 1.6e-7]}, "its sizes are damaged or incomplete"),
    ("ConvolutionTwin", {"grid": [-4, -4]}, "its sizes are damaged or incomplete"),
    ("ConvolutionTwin", {"counts.n_added": 1e8, "n_added": 1e7}, "its sizes are damaged or incomplete"),
    ("TrainingLab", {"shape": [1e8, 1e8, 0], "images": {"base64": ""}}, "its images are damaged or incomplete"),
    ("TrainingLab", {"shape": [-8, -8, 1]}, "its images are damaged or incomplete"),
    ("TrainingLab", {"counts": [0, 0, 9]}, "its images are damaged or incomplete"),
    ("TrainingLab", {"patch_sizes": [1.6], "settings.patch_size": 1.6}, "its images are damaged or incomplete"),
    ("TrainingLab", {"limits.n_layers": 1e8, "settings.n_layers": 1e8}, "its limits are damaged or incomplete"),
    ("TrainingLab", {"limits.n_hidden": 2**30, "settings.n_hidden": 2**30}, "its limits are damaged or incomplete"),
    ("TrainingLab", {"limits.n_train": 4, "settings.n_train": 4}, "its limits are damaged or incomplete"),
    ("TrainingLab", {"runs.0.history.0.epoch": 1e308, "runs.0.history.1.epoch": 1e308}, "its kept runs are damaged"),
]


def places(state, path=()):
    """Paths to the values of a nested state, of lists only to the first and the last."""
    if isinstance(state, dict) and "base64" not in state:
        parts = list(state)
    elif isinstance(state, list):
        parts = sorted({0, len(state) - 1}) if state else []
    else:
        parts = []
    return [path, *(place for part in parts for place in places(state[part], (*path, part)))]


def damaged(state, path, value):
    """A copy of a state with another value in one place."""
    state = copy.deepcopy(state)
    part = state
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = value
    return state


@pytest.fixture
def render(tab, tmp_path):
    """A function that opens a page with a figure, and a function that renders states in it: pictures and sentences."""

    def opened(kind):
        figure = FIGURES[kind]()
        page = tab.open(write_page(tmp_path / "page.html", figure))
        page.evaluate(IMPORT)
        return json.loads(json.dumps(figure.state())), lambda state: evaluate_within(page, LIMIT, RENDER, state)

    return opened


@pytest.mark.parametrize("kind", FIGURES)
def test_a_wrong_value_in_any_place_is_shown_or_named_at_once(render, kind):
    """No endless loop up to such a size, and none of the browser's own messages, which name no part of the state."""
    state, rendered = render(kind)
    assert len(rendered(state)) == 1
    for path in places(state)[1:]:
        for value in WRONG:
            try:
                n_pictures, *said = rendered(damaged(state, path, value))
            except AssertionError as error:
                pytest.fail(f"{path} = {value!r}: {error}")
            assert n_pictures if not said else len(said) == 1 and OWN.fullmatch(said[0]), (path, value, said)


@pytest.mark.parametrize("kind, changes, words", TOGETHER)
def test_wrong_sizes_that_agree_are_named(render, kind, changes, words):
    state, rendered = render(kind)
    for place, value in changes.items():
        state = damaged(state, [int(part) if part.isdigit() else part for part in place.split(".")], value)
    assert words in rendered(state)[1]


def change(state, chance: random.Random) -> None:
    """Put something odd in one place of a nested state, or leave it out."""
    places = list(state) if isinstance(state, dict) else range(len(state))
    place = chance.choice(places)
    if isinstance(state[place], (dict, list)) and state[place] and chance.random() < 0.7:
        change(state[place], chance)
    elif isinstance(state, dict) and chance.random() < 0.2:
        del state[place]
    else:
        state[place] = chance.choice(ODD)


@pytest.mark.parametrize("kind", FIGURES)
def test_any_damaged_state_is_shown_or_named_in_a_sentence(browser, tmp_path, kind):
    """No error in the console, no hang, and the sentence in the figure's own place."""
    path = write_page(tmp_path / "page.html", FIGURES[kind]())
    html = path.read_text(encoding="utf-8")
    payload = PAYLOAD.search(html)[1]
    tab = Tab(browser)
    for seed in range(400 if IS_LONG else 15):
        stored = json.loads(payload)
        chance = random.Random(seed)
        for _ in range(chance.choice([1, 1, 2])):
            change(stored["state"], chance)
        path.write_text(html.replace(payload, json.dumps(stored).replace("<", "\\u003c")), encoding="utf-8")
        page = tab.open(path)
        said = page.locator("[role=alert]").all_inner_texts()
        assert (len(said) == 1 and "\n" not in said[0]) or page.locator(".mx canvas, .mx svg").count(), seed
        if kind == "TrainingLab" and not said:
            page.get_by_role("button", name="Train", exact=True).click()
            page.wait_for_function(TRAINED, timeout=1000 * LIMIT)
        assert tab.problems == [], seed
    tab.page.close()
