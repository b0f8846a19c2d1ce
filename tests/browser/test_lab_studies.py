"""What the laboratory shows beside its curves: influence on a token, kept runs in groups; and links that set it up."""

import copy
import json
import math
from urllib.parse import quote

import numpy as np
import pytest
import torch
from torch import nn

from _extensions.chromium import Tab, settle, write_page
from mixer import load_data
from mixer.widgets import TrainingLab

MODEL = "document.querySelector('.mixer-figure').model"
MODELS = "[...document.querySelectorAll('.mixer-figure')].map(({ model }) => model)"
SMALL = dict(n_layers=2, n_channel=8, n_hidden=8, n_epochs=2)
MAPS = "() => [...document.querySelectorAll('.mx-layers canvas')].map((canvas) => canvas.toDataURL())"
# The picture of a layer's influence, at the middle of each pixel of the image: red of [H, W].
REDS = """([layer, H, W]) => {
  const canvas = document.querySelectorAll(".mx-sources canvas")[layer];
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const at = (i, n, size) => Math.floor(((i + 0.5) * size) / n);
  const red = (y, x) => data[4 * (at(y, H, canvas.height) * canvas.width + at(x, W, canvas.width))];
  return Array.from({ length: H }, (_, y) => Array.from({ length: W }, (_, x) => red(y, x)));
}"""
# A second laboratory in the page, which is rendered as anywidget renders it and can be ended, below a link.
RENDER = """async (href) => {
  const { module } = JSON.parse(document.querySelector("script[type='application/json']").textContent);
  const { default: figure } = await import(URL.createObjectURL(new Blob([module], { type: "text/javascript" })));
  const [first, state] = [document.querySelector(".mixer-figure").model, {}];
  const get = (name) => (name in state ? state[name] : first.get(name));
  const model = { get, set: (name, value) => (state[name] = value), on() {}, off() {}, save_changes() {} };
  const link = Object.assign(document.createElement("a"), { href, id: "second", textContent: "second" });
  const el = document.createElement("div");
  document.body.append(link, el);
  Object.assign(window, { second: model, end: await figure.render({ model, el }) });
}"""


@pytest.fixture(scope="session")
def digits():
    return load_data("digits")


class Words:
    """HTML that stands between the figures of a page."""

    def __init__(self, html: str):
        self.html = html

    def to_html(self) -> str:
        return self.html


def link_to(name: str, **settings) -> Words:
    return Words(f'<p><a href="#lab={quote(json.dumps(settings))}">{name}</a></p>')


def opened(tab, tmp_path, *figures):
    return tab.open(write_page(tmp_path / "page.html", *figures))


def unfold(page, words):
    page.locator("summary", has_text=words).press("Enter")
    settle(page)


def trained(page, lab, n_epochs=2):
    """Train in the page; returns the model, as a kernel would have it."""
    page.get_by_role("button", name="Train", exact=True).click()
    page.wait_for_function(f"{MODEL}.get('history').length === {n_epochs} && !{MODEL}.get('running')")
    settle(page)
    lab.settings = page.evaluate(f"{MODEL}.get('settings')")
    lab.weights = bytes(page.evaluate(f"Array.from(new Uint8Array({MODEL}.get('weights').buffer))"))
    return lab.model()


# ---------------------------------------------------------------------------------------------------- influence


def influences(model, image):
    """The influence of tokens s on tokens t in each layer, [n_layers, t, s], from derivatives by autograd."""
    x, found = model.per_patch(model.patches(image)).detach(), []
    for layer in model.layers:
        block = copy.deepcopy(layer.token_mixing)
        normed = block.norm(x)[0].detach() if hasattr(block, "norm") else x[0]  # [n_tokens, n_channel]
        block.norm = nn.Identity()
        J = torch.autograd.functional.jacobian(lambda z, block=block: block(z[None])[0] - z, normed)
        found.append(J.diagonal(dim1=1, dim2=3).abs().mean(dim=-1))
        x = layer(x).detach()
    return torch.stack(found)


def drawn(page, layer, image, shape):
    """The influence of every token as a share of the largest, as a layer's picture shows it over an image [H, W]."""
    red = np.array(page.evaluate(REDS, [layer, *image.shape]), float)
    behind = np.floor(image / 2)
    alpha = (red - behind) / (255 - behind) / 0.9
    rows, columns = shape
    H, W = image.shape
    return alpha.reshape(rows, H // rows, columns, W // columns)[:, 0, :, 0].flatten()


@pytest.mark.parametrize(
    "changes",
    [{}, dict(shuffle="patches", norm="channels"), dict(token_mixing="toeplitz"), dict(token_mixing="shift")],
)
def test_influence_is_that_of_the_model(tab, tmp_path, digits, changes):
    lab = TrainingLab(digits, **SMALL, **changes)
    page = opened(tab, tmp_path, lab)
    assert page.locator(".mx-sources canvas").count() == 0  # nothing is computed for a part that is folded away
    model = trained(page, lab)
    unfold(page, "Influence on a token")
    page.get_by_role("slider", name="Validation image").fill("7")
    page.get_by_role("slider", name="Token").fill("6")
    settle(page)
    data = digits.shuffled(lab.settings["shuffle"], 2)
    expected = influences(model, data.normalise(data.validation.images[7:8]))
    image = data.validation.images[7].flatten()
    seen = (image if data.pixel_order is None else image[data.pixel_order]).view(8, 8).numpy()
    labels = page.locator(".mx-sources canvas").evaluate_all("(all) => all.map((one) => one.ariaLabel)")
    for layer, label in enumerate(labels):
        sizes = expected[layer, 6]
        shares = drawn(page, layer, seen, (4, 4))
        np.testing.assert_allclose(shares, (sizes / sizes.max()).numpy(), atol=0.02)
        assert f"influence on token 6 in layer {layer}: it is mixed most from the tokens" in label
        assert f"tokens {sizes.argmax().item()}," in label or changes  # equal ones may stand in any order
        heading = page.locator(".mx-sources .mx-title").nth(layer).inner_text()
        assert heading == f"Layer {layer}: up to {sizes.max().item():.2f}"
    assert len(labels) == 2


def test_influence_follows_the_token_the_image_and_the_moment(tab, tmp_path, digits):
    page = opened(tab, tmp_path, TrainingLab(digits, **SMALL))
    trained(page, TrainingLab(digits))
    unfold(page, "Influence on a token")
    pictures = page.locator(".mx-sources canvas")
    seen = [pictures.first.evaluate("(canvas) => canvas.toDataURL()")]

    def changed():
        settle(page)
        seen.append(pictures.first.evaluate("(canvas) => canvas.toDataURL()"))
        assert seen[-1] not in seen[:-1]

    box = pictures.last.bounding_box()
    pictures.last.click(position={"x": box["width"] * 0.9, "y": box["height"] * 0.1})
    changed()
    assert page.get_by_role("slider", name="Token").input_value() == "3"
    page.get_by_role("slider", name="Token").press("ArrowLeft")
    changed()
    page.get_by_role("slider", name="Validation image").press("ArrowRight")
    changed()
    page.get_by_role("slider", name="Epoch").press("Home")
    changed()
    page.get_by_label("Image", exact=True).select_option(label="my drawing")
    changed()
    assert page.get_by_role("slider", name="Validation image").count() == 0  # it would choose nothing now
    board = page.locator(".mx-board")
    board.click()
    changed()
    page.get_by_label("Token mixing", exact=True).select_option("none")
    page.get_by_role("button", name="Reset").click()
    page.wait_for_function("document.querySelector('.mx-sources').innerText.includes('Layer 1: nothing is mixed')")


# ---------------------------------------------------------------------------------------------------- kept runs


def kept(accuracies, **changes):
    """Runs that a kernel could set, one for each accuracy, with the seeds 1, 2, …"""
    settings = TrainingLab(load_data("digits"), **changes).settings
    numbers = {"train_loss": 1.0, "train_accuracy": 0.5, "validation_loss": 1.0}

    def history(accuracy):
        return [{"epoch": epoch, **numbers, "validation_accuracy": accuracy} for epoch in range(1, 21)]

    return [
        dict(settings=settings | {"seed": seed}, history=history(accuracy))
        for seed, accuracy in enumerate(accuracies, start=1)
    ]


def test_no_axis_reaches_beyond_all_images(tab, tmp_path, digits):
    page = opened(tab, tmp_path, TrainingLab(digits))
    page.evaluate(f"(runs) => {MODEL}.set('runs', runs)", kept([1.0, 1.0, 1.0]))
    settle(page)
    assert page.locator(".mx-axis span").all_inner_texts() == ["95.0 %", "validation accuracy", "100.0 %"]


@pytest.mark.parametrize(
    ("others", "sentence"),
    [
        (
            [0.95, 0.96, 0.97],
            f"Clearly above the first: all its dots are, which happens by luck alone once in {20 // 2}.",
        ),
        (
            [0.7, 0.5, 0.6, 0.65, 0.55],
            f"Clearly below the first: all its dots are, which happens by luck alone once in {56 // 2}.",
        ),
        ([0.95, 0.96, 0.9], "Nothing can be told: the dots of the two groups overlap."),
        ([0.92, 0.96, 0.97], "Nothing can be told"),  # equal is not above
        ([0.99, 0.98], "Too few runs to tell a difference: train 3 seeds of both."),
    ],
)
def test_groups_of_runs_are_compared_by_the_rule_of_chapter_8(tab, tmp_path, digits, others, sentence):
    assert math.comb(6, 3) == 20 and math.comb(8, 3) == 56
    base = [0.9, 0.92, 0.88]
    runs = kept(base) + kept(others, token_mixing="toeplitz", norm="channels")
    page = opened(tab, tmp_path, TrainingLab(digits))
    page.evaluate(f"(runs) => {MODEL}.set('runs', runs)", runs[::2] + runs[1::2])  # in any order
    settle(page)
    table = page.locator(".mx-compare table")
    words = table.inner_text()
    assert sentence in words
    assert "Layers: 2, Token mixing: MLP" in words
    assert "LayerNorm over: channels, Token mixing: one kernel for all positions" in words
    assert "90.0 %" in words  # the mean of the first group
    low, high = (float(text.rstrip(" %")) / 100 for text in table.locator(".mx-axis span").all_inner_texts()[::2])
    for row, values in enumerate((base, others)):
        dots = table.locator(".mx-dots").nth(row)
        lefts = dots.locator("i").evaluate_all("(all) => all.map((dot) => parseFloat(dot.style.left))")
        assert sorted(low + left / 100 * (high - low) for left in lefts) == pytest.approx(sorted(values))
        mean = dots.locator("b").evaluate("(line) => parseFloat(line.style.left)")
        assert low + mean / 100 * (high - low) == pytest.approx(sum(values) / len(values))
        assert f"mean {sum(values) / len(values):.1%}".replace("%", " %") in dots.get_attribute("aria-label")
    table.get_by_role("button", name="Remove group 1").click()
    settle(page)
    assert page.evaluate(f"{MODEL}.get('runs').length") == len(others)
    assert "Layers: 2, Token mixing: one kernel" in table.inner_text()


def test_remove_hands_the_focus_to_the_next_button(tab, tmp_path, digits):
    page = opened(tab, tmp_path, TrainingLab(digits))
    runs = [run for n in (1, 2, 3) for run in kept([0.9], n_layers=n)]
    page.evaluate(f"(runs) => {MODEL}.set('runs', runs)", runs)
    for group, focused in ((2, "Remove group 2"), (2, "Remove group 1"), (1, "Keep this run")):
        page.get_by_role("button", name=f"Remove group {group}").press("Enter")
        settle(page)
        assert page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.innerText") == focused


def test_a_run_that_cannot_be_kept_yet_is_said(tab, tmp_path, digits):
    page = opened(tab, tmp_path, TrainingLab(digits, **SMALL))
    said = page.get_by_text("Nothing to keep yet: a run counts from its first full epoch.")
    page.get_by_role("button", name="Keep this run").click()
    settle(page)
    assert said.is_visible()
    trained(page, TrainingLab(digits))
    assert not said.is_visible()


def test_what_makes_runs_differ_beside_their_settings_makes_groups(tab, tmp_path, digits):
    whole, short, opened_run = kept([0.9, 0.8, 0.7])
    short["history"] = short["history"][:5]
    opened_run["start"] = "checkpoint"
    page = opened(tab, tmp_path, TrainingLab(digits))
    page.evaluate(f"(runs) => {MODEL}.set('runs', runs)", [whole, short, opened_run])
    settle(page)
    words = page.locator(".mx-compare tbody").inner_text()
    assert "stopped after epoch 5" in words and "from a checkpoint" in words
    assert page.locator(".mx-dots").count() == 3


def test_five_seeds_are_one_group_and_again_the_same(tab, tmp_path, digits):
    page = opened(tab, tmp_path, TrainingLab(digits, **SMALL))
    for n in (5, 3):
        page.evaluate(f"window.before = {MODEL}.get('runs')")
        page.get_by_role("button", name=f"Train {n} seeds").click()
        fresh = f"{MODEL}.get('runs').filter((run) => !before.includes(run)).length"
        page.wait_for_function(f"{fresh} === {n} && !{MODEL}.get('running')")
        assert page.evaluate(f"{MODEL}.get('settings').seed") == 1
        runs = page.evaluate(f"{MODEL}.get('runs')")
        assert sorted(run["settings"]["seed"] for run in runs) == [1, 2, 3, 4, 5]
        assert {*runs[0]} == {"settings", "history", "test_loss", "test_accuracy"}
    settle(page)
    assert page.locator(".mx-dots i").count() == 5
    assert page.locator(".mx-dots").count() == 1


def test_a_series_of_seeds_ends_where_its_settings_change(tab, tmp_path, digits):
    """Those of a pause, after which Train begins anew, and those of the run under way, which is kept."""
    page = opened(tab, tmp_path, TrainingLab(digits, **SMALL | dict(n_epochs=500)))
    epochs = page.get_by_label("Epochs", exact=True)
    page.get_by_role("button", name="Train 3 seeds").click()
    page.wait_for_function(f"{MODEL}.get('history').length > 0")
    page.locator(".mx-buttons button").first.click()  # Pause
    page.wait_for_function(f"!{MODEL}.get('running')")
    epochs.fill("20")
    epochs.press("Enter")
    trained(page, TrainingLab(digits), 20)
    assert page.evaluate(f"[{MODEL}.get('runs').length, {MODEL}.get('settings').seed]") == [0, 1]
    change = f"{MODEL}.set('settings', {{ ...{MODEL}.get('settings'), n_epochs: 2 }})"
    page.get_by_role("button", name="Train 3 seeds").evaluate(f"(button) => {{ button.click(); {change}; }}")
    page.wait_for_function(f"{MODEL}.get('history').length === 20 && !{MODEL}.get('running')")
    settle(page)
    assert page.evaluate(f"[{MODEL}.get('runs').length, {MODEL}.get('settings').seed]") == [1, 1]


def test_maps_of_a_kept_run_stand_beside_those_of_another(tab, tmp_path, digits):
    page = opened(tab, tmp_path, TrainingLab(digits, **SMALL))
    trained(page, TrainingLab(digits))
    first = page.evaluate(MAPS)[::2]  # between them stand those of another run, of which there is none yet
    assert not page.get_by_label("Beside them").is_visible()
    page.get_by_role("button", name="Keep this run").click()
    page.get_by_role("button", name="New seed").click()
    page.get_by_label("Layers", exact=True).fill("3")
    page.get_by_label("Layers", exact=True).press("Enter")
    trained(page, TrainingLab(digits))
    page.get_by_label("Beside them").select_option(label="Layers: 2, Token mixing: MLP, seed 1")
    settle(page)
    both = page.evaluate(MAPS)
    assert both[1:4:2] == first and both[0] != first[0]
    boxes = [box.bounding_box() for box in page.locator(".mx-layers > div").all()]
    assert boxes[0]["y"] == boxes[1]["y"] < boxes[2]["y"] == boxes[3]["y"] < boxes[4]["y"]
    page.get_by_role("button", name="Remove group 1").click()
    page.wait_for_function("document.querySelectorAll('.mx-layers canvas:not([hidden])').length >= 3")
    settle(page)
    assert page.locator(".mx-pairs").count() == 0


# ---------------------------------------------------------------------------------------------------- links


def layers_of(page):
    return page.evaluate(f"{MODELS}.filter(Boolean).map((model) => model.get('settings').n_layers)")


def wait_for_focus(page, i):
    page.wait_for_function(f"document.activeElement === document.querySelectorAll('.mx-buttons')[{i}].firstChild")


def test_a_link_sets_the_next_laboratory_below_it(tab, tmp_path, digits):
    labs = [TrainingLab(digits, **SMALL), TrainingLab(digits, **SMALL)]
    far = Words('<div style="height: 3000px"></div>')
    links = [link_to(f"link {n}", n_layers=n) for n in (3, 4, 5)]
    page = opened(tab, tmp_path, links[0], labs[0], links[1], far, labs[1], links[2])
    for n, expected, i in ((3, [3, 2], 0), (4, [3, 4], 1), (5, [3, 5], 1)):
        page.get_by_text(f"link {n}").press("Enter")
        wait_for_focus(page, i)
        assert layers_of(page) == expected
        status = page.locator(".mx-lab").nth(i).locator("[role=status]").first
        assert status.inner_text().startswith("These are the settings of the link; press Train.")
        box = page.locator(".mx-buttons").nth(i).bounding_box()
        assert 0 <= box["y"] < 900
    page.get_by_label("Layers", exact=True).last.fill("1")
    page.get_by_label("Layers", exact=True).last.press("Enter")
    page.get_by_text("link 5").click()  # the address is this one already
    wait_for_focus(page, 1)
    assert layers_of(page) == [3, 5]
    page.go_back()  # to the address of link 4, which the first laboratory takes
    wait_for_focus(page, 0)
    assert layers_of(page) == [4, 5]


def test_a_link_pauses_what_runs_and_opens_what_is_folded(tab, tmp_path, digits):
    lab = TrainingLab(digits, **SMALL | dict(n_epochs=400))
    page = opened(tab, tmp_path, link_to("here", seed=7), Words("<details><summary>The lab</summary>"), lab)
    page.evaluate(f"{MODEL}.set('running', true)")
    page.wait_for_function(f"{MODEL}.get('step') > 0")
    page.get_by_role("link", name="here").click()
    wait_for_focus(page, 0)
    page.wait_for_function(f"!{MODEL}.get('running') && document.activeElement.innerText === 'Train'")
    assert page.evaluate(f"{MODEL}.get('settings').seed") == 7
    assert page.locator("details", has=page.locator(".mixer-figure")).first.evaluate("(part) => part.open")


def test_of_two_laboratories_the_first_takes_the_address(browser, tmp_path, digits):
    path = write_page(tmp_path / "page.html", TrainingLab(digits, **SMALL), TrainingLab(digits, **SMALL))
    tab = Tab(browser)
    page = tab.open(f'{path.as_uri()}#lab={{"n_layers":3}}')
    wait_for_focus(page, 0)
    assert layers_of(page) == [3, 2]
    page.evaluate("location.hash = '#lab={\"n_layers\":4}'")
    page.wait_for_function(f"{MODEL}.get('settings').n_layers === 4")
    assert layers_of(page) == [4, 2]
    page.evaluate("location.hash = '#elsewhere'")
    settle(page)
    assert layers_of(page) == [4, 2]
    page.close()
    assert tab.problems == []


def test_a_laboratory_takes_the_address_once_all_before_it_are_alive(tab, tmp_path, digits):
    slow = Words("<div class='mixer-figure' id='slow'></div>")
    path = write_page(tmp_path / "page.html", slow, TrainingLab(digits, **SMALL))
    tab.page.goto(f'{path.as_uri()}#lab={{"n_layers":3}}')
    tab.page.wait_for_selector(".mx-lab canvas")
    settle(tab.page)
    model = "document.querySelector('#slow ~ .mixer-figure').model"
    assert tab.page.evaluate(f"{model}.get('settings').n_layers") == 2
    tab.page.evaluate("document.querySelector('#slow').innerHTML = '<div class=mx>'")
    tab.page.wait_for_function(f"{model}.get('settings').n_layers === 3")


def test_a_laboratory_that_has_ended_hears_no_link(tab, tmp_path, digits):
    page = opened(tab, tmp_path, TrainingLab(digits, **SMALL))
    page.evaluate(RENDER, '#lab={"n_layers":3}')
    page.get_by_text("second", exact=True).click()
    page.wait_for_function("second.get('settings').n_layers === 3")
    page.evaluate("() => { end(); second.set('settings', { ...second.get('settings'), n_layers: 1 }); }")
    page.get_by_text("second", exact=True).click()
    page.evaluate("document.querySelector('.mixer-figure').remove()")
    page.evaluate("location.hash = '#lab={\"n_layers\":4}'")
    settle(page)
    assert page.evaluate("second.get('settings').n_layers") == 1


def test_on_a_narrow_page_the_parts_are_folded_away(browser, tmp_path, digits):
    tab = Tab(browser, viewport={"width": 390, "height": 844})
    page = tab.open(write_page(tmp_path / "page.html", TrainingLab(digits, **SMALL)))
    train = page.get_by_role("button", name="Train", exact=True)
    assert train.bounding_box()["y"] < 844
    assert not page.get_by_label("Patch size").is_visible()
    unfold(page, "Model")
    page.get_by_label("Patch size").select_option("4")
    assert page.evaluate(f"{MODEL}.get('settings').patch_size") == 4
    unfold(page, "Influence on a token")
    unfold(page, "Your drawing")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.close()
    assert tab.problems == []


def test_train_that_is_pressed_at_once_after_pause_goes_on(tab, tmp_path, digits):
    page = opened(tab, tmp_path, TrainingLab(digits, **SMALL | dict(n_epochs=15, n_channel=32)))
    page.evaluate(f"{MODEL}.set('running', true)")
    page.wait_for_function(f"{MODEL}.get('history').length > 0")
    frame = "await new Promise(requestAnimationFrame)"
    page.evaluate(f"async () => {{ {MODEL}.set('running', false); {frame}; {frame}; {MODEL}.set('running', true); }}")
    page.wait_for_function(f"{MODEL}.get('history').length === 15 && !{MODEL}.get('running')")
    assert page.evaluate(f"{MODEL}.get('history').map(({{ epoch }}) => epoch)") == list(range(1, 16))


def test_a_number_can_be_typed_while_a_run_draws(tab, tmp_path, digits):
    page = opened(tab, tmp_path, TrainingLab(digits, **SMALL | dict(n_epochs=400)))
    page.evaluate(f"{MODEL}.set('running', true)")
    field = page.get_by_label("Channels", exact=True)
    field.fill("")
    for text in ("1", "12"):
        field.press(text[-1])
        step = page.evaluate(f"{MODEL}.get('step')")
        page.wait_for_function(f"{MODEL}.get('step') > {step}")
        settle(page)
        assert field.input_value() == text
    field.press("Enter")
    page.wait_for_function(f"{MODEL}.get('settings').n_channel === 12")
    page.evaluate(f"{MODEL}.set('settings', {{ ...{MODEL}.get('settings'), n_channel: 9 }})")
    settle(page)
    assert field.input_value() == "9"  # others can still change what the field shows


def test_what_cannot_be_used_is_said_while_a_run_draws(tab, tmp_path, digits):
    page = opened(tab, tmp_path, TrainingLab(digits, **SMALL | dict(n_epochs=400)))
    page.evaluate(f"{MODEL}.set('running', true)")
    field = page.get_by_label("Layers", exact=True)
    said = page.locator(".mx-settings").get_by_text("Layers: give a whole number from 1 to 8.")
    field.fill("99")
    field.press("Tab")  # the focus goes on to another
    step = page.evaluate(f"{MODEL}.get('step')")
    page.wait_for_function(f"{MODEL}.get('step') > {step}")
    settle(page)
    assert field.input_value() == "99" and said.is_visible()
    page.evaluate(f"{MODEL}.set('settings', {{ ...{MODEL}.get('settings'), n_layers: 3 }})")
    settle(page)
    assert field.input_value() == "3" and not said.is_visible()
