"""The learning-rate valley: runs that the page trains, held against those of the laboratory; and every control."""

import math
import re
from dataclasses import replace

import numpy as np
import pytest

from _extensions.chromium import Tab, remember, settle, wait_until_changed, write_page
from mixer import Split, load_data
from mixer.widgets import TrainingLab, ValleyExplorer
from mixer.widgets.valley import INKS, RATES

N_STEPS = 100
MODEL = dict(patch_size=2, n_layers=2, n_channel=16, n_hidden=32, batch_size=20, n_epochs=4)
TRAIT = "(name) => document.querySelector('.mixer-figure').model.get(name)"
SET = "([name, value]) => document.querySelector('.mixer-figure').model.set(name, value)"
IS_TRAINED = """() => {
  const { model } = document.querySelector(".mixer-figure");
  const [optimiser, seed, lr] = ["optimiser", "seed", "lr"].map((name) => model.get(name));
  const found = model.get("losses").some((run) => run[0] === optimiser && run[1] === seed && run[2] === lr);
  const { textContent: words } = document.querySelector("p[role=status]");
  return found && words.startsWith(`Learning rate ${lr} with ${optimiser === "adam" ? "Adam" : "plain"}`)
    && words.includes(`, seed ${seed}: `);
}"""


@pytest.fixture
def figure():
    figure = ValleyExplorer(load_data("digits"))
    figure.optimiser = "adam"
    return figure


@pytest.fixture
def page(tab, tmp_path, figure):
    page = tab.open(write_page(tmp_path / "page.html", figure))
    trained(page)
    return page


def trained(page):
    """Wait until the chosen run is trained, and give what is said of it."""
    page.wait_for_function(IS_TRAINED)
    return page.locator("p[role=status]").inner_text()


def losses(page, optimiser="adam", seed=1):
    """The losses of an optimiser and a seed, by learning rate."""
    runs = page.evaluate(TRAIT, "losses")
    return {lr: loss for own, one, lr, loss in sorted(runs, key=lambda run: run[2]) if (own, one) == (optimiser, seed)}


def sweep(page, n):
    """Train all rates, until there are n runs."""
    page.get_by_role("button", name="Train all rates").click()
    page.wait_for_function(f"({TRAIT})('losses').length === {n}")
    settle(page)


def choose(page, **traits):
    for name, value in traits.items():
        page.evaluate(SET, [name, value])
    return trained(page)


def marks(page, kind):
    """The number of filled and of hollow marks of a kind in the valley."""
    fills = page.locator(f".mx svg >> nth=0 >> {kind}").evaluate_all("all => all.map((m) => m.getAttribute('fill'))")
    return len(fills) - fills.count("none"), fills.count("none")


def test_the_chosen_run_alone_is_trained_at_first(page):
    assert [*losses(page)] == [0.001] and page.evaluate(TRAIT, "losses")[0][:2] == ["adam", 1]
    assert marks(page, "circle") == (1, 0)
    said = page.locator("p[role=status]").inner_text()
    first, last = map(float, re.findall(r"from (.*) to (.*)\.$", said)[0])
    assert abs(first - math.log(10)) < 0.3 and last == pytest.approx(losses(page)[0.001], rel=0.01)


@pytest.mark.parametrize("optimiser, lr", [("adam", 0.01), ("sgd", 0.5)])
def test_a_run_is_that_of_the_laboratory(page, browser, tmp_path, optimiser, lr):
    """The loss after it to the last digit; the mean of the losses of its batches as well as they are drawn."""
    choose(page, optimiser=optimiser, lr=lr)
    points = page.locator(".mx svg >> nth=1 >> polyline").get_attribute("points").split()
    heights = np.array([float(point.split(",")[1]) for point in points])
    ticks = page.locator(".mx svg >> nth=1 >> line").evaluate_all("all => all.map((l) => +l.getAttribute('y1'))")
    drawn = 10 ** ((ticks[1] - heights) / (ticks[1] - ticks[2]))  # the first three lines are 0.1, 1 and 10
    data = load_data("digits")
    few = Split(data.train.images[:500], data.train.labels[:500])
    lab = TrainingLab(replace(data, train=few, validation=few), **MODEL, optimiser=optimiser, lr=lr)
    tab = Tab(browser)
    other = tab.open(write_page(tmp_path / "lab.html", lab))
    other.get_by_role("button", name="Train", exact=True).click()
    other.wait_for_function(f"({TRAIT})('history').length === 4")
    history = other.evaluate(TRAIT, "history")
    other.close()
    assert losses(page, optimiser)[lr] == history[-1]["validation_loss"]
    assert len(drawn) == N_STEPS
    for record, batches in zip(history, drawn.reshape(4, 25), strict=True):
        assert record["train_loss"] == pytest.approx(batches.mean(), rel=0.01)


def test_each_optimiser_has_a_valley_and_that_of_adam_lies_further_left(page):
    """For three seeds: the smallest rate hardly changes the loss, the largest ruins it, the best lies between."""
    n = 0
    for seed in (1, 2, 3):
        lowest = {}
        for optimiser in ("adam", "sgd"):
            choose(page, optimiser=optimiser, seed=seed)
            n += len(RATES)
            sweep(page, n)
            found = losses(page, optimiser, seed)
            assert [*found] == RATES
            numbers = {lr: loss for lr, loss in found.items() if loss is not None}
            lowest[optimiser] = min(numbers, key=numbers.get)
            assert numbers[0.0001] > 0.9 * math.log(10)
            assert numbers[lowest[optimiser]] < 0.5
            assert found[50] is None or found[50] > 10
        assert 0.01 <= lowest["adam"] <= 0.1 < 0.5 <= lowest["sgd"] <= 2  # as chapter 6 says
        assert all(found[lr] is None or found[lr] > 10 for lr in RATES if lr >= 10 * lowest["sgd"])
        assert found[50] is None


def test_the_words_say_what_became_of_a_run(page):
    small = choose(page, optimiser="sgd", lr=0.001)
    assert "seed 1: the loss hardly falls, from " in small
    assert "seed 1: the loss falls, from " in choose(page, lr=0.5)
    assert re.search("seed 1: the loss jumps up to .* and ends at more than a million", choose(page, lr=5))
    words = choose(page, lr=50)
    n = int(re.search(r"seed 1: after (\d+) of 100 steps the loss is no longer a number", words)[1])
    assert len(page.locator(".mx svg >> nth=1 >> polyline").get_attribute("points").split()) == n + 1
    assert "lowest" not in words
    sweep(page, len(RATES) + 1)
    numbers = {lr: loss for lr, loss in losses(page, "sgd").items() if loss is not None}
    best = min(numbers, key=numbers.get)
    said = page.locator("p[role=status]").inner_text()
    assert said.endswith(f" is {numbers[best]:.3f}, at the learning rate {best:g}.")


def test_the_same_seed_gives_the_same_dots_and_another_seed_others(page):
    sweep(page, len(RATES))
    first = losses(page)
    page.get_by_role("button", name="Reset").click()
    trained(page)
    assert len(page.evaluate(TRAIT, "losses")) == 1
    sweep(page, len(RATES))
    assert losses(page) == first
    assert page.locator(".mx svg >> nth=0 >> polyline").count() == 1
    page.get_by_role("button", name="Train all rates with another seed").click()
    page.wait_for_function(f"({TRAIT})('losses').length === {2 * len(RATES)}")
    settle(page)
    assert losses(page) == first and page.evaluate(TRAIT, "seed") == 2
    second = losses(page, seed=2)
    assert [*second] == RATES and all(second[lr] != first[lr] for lr in RATES)
    assert page.locator(".mx svg >> nth=0 >> polyline").count() == 2
    assert page.locator(".mx svg >> nth=1 >> polyline").count() == 2  # the run of the first seed stays behind


def test_the_dots_of_the_other_optimiser_stay_hollow(page):
    sweep(page, len(RATES))
    n_above = sum(loss > 10 for loss in losses(page).values())
    assert n_above >= 2 and marks(page, "circle") == (len(RATES) - n_above, 0)
    page.get_by_label("Optimiser").select_option("sgd")
    trained(page)
    settle(page)
    assert marks(page, "circle") == (0, len(RATES) - n_above)
    assert marks(page, "rect") == (1, 0)


def test_every_control_changes_what_is_shown(page):
    box = page.locator(".mx")
    for work in (
        lambda: page.get_by_role("slider").press("ArrowRight"),
        lambda: page.get_by_label("Optimiser").select_option("sgd"),
        lambda: page.get_by_role("button", name="Train all rates").press("Enter"),
        lambda: page.get_by_role("button", name="Reset").press("Enter"),
    ):
        remember(box)
        work()
        wait_until_changed(box, work)
    assert page.evaluate(TRAIT, "lr") == 0.002 and page.get_by_role("slider").get_attribute("aria-valuetext") == "0.002"


def test_stop_leaves_the_rest_out_and_the_button_trains_it_later(page):
    page.get_by_role("button", name="Train all rates").click()
    page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Train all rates").wait_for()
    page.wait_for_timeout(500)
    assert 1 <= len(losses(page)) < len(RATES)
    sweep(page, len(RATES))
    assert [*losses(page)] == RATES


def test_the_chosen_rate_is_trained_before_those_that_wait(page):
    page.get_by_role("button", name="Train all rates").click()
    page.get_by_role("slider").press("End")
    assert "no longer" in trained(page) or losses(page)[50] > 10
    assert len(losses(page)) < len(RATES)
    page.wait_for_function(f"({TRAIT})('losses').length === {len(RATES)}")
    assert [*losses(page)] == RATES


def test_reset_is_heard_in_the_middle_of_a_run(page):
    """What the engine still sends of the old run is left out, and the new one is as if nothing had been."""
    before = losses(page)
    page.get_by_role("button", name="Train all rates").click()
    page.get_by_role("button", name="Reset").click()
    trained(page)
    page.wait_for_timeout(300)
    assert losses(page) == before


def test_without_a_worker_it_trains_on_the_page_itself(browser, tmp_path, figure, page):
    tab = Tab(browser)
    tab.page.add_init_script("delete window.Worker")
    other = tab.open(write_page(tmp_path / "page.html", figure))
    trained(other)
    assert losses(other) == losses(page)
    other.close()
    assert tab.problems == []


def test_a_damaged_engine_is_named(tab, tmp_path, figure):
    path = write_page(tmp_path / "page.html", figure)
    path.write_text(path.read_text().replace("AGFzbQ", "AGFzbg", 1))
    page = tab.open(path)
    page.get_by_text("The runs stopped: its engine is damaged or incomplete.").wait_for()
    assert page.evaluate(TRAIT, "losses") == []


def test_every_target_is_large_enough_and_it_fits_a_narrow_page(page):
    page.set_viewport_size({"width": 390, "height": 800})
    heights = page.locator(".mx :is(input, select, button)").evaluate_all("all => all.map((e) => e.offsetHeight)")
    assert len(heights) == 4 and min(heights) >= 44
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize(
    ("trait", "value", "words"),
    [
        ("optimiser", "adamw", "optimiser is adamw; choose from sgd, adam"),
        ("lr", 0.003, "lr is 0.003; choose from 0.0001, 0.0002, "),
        ("seed", 0, "seed is 0; choose from 1 to 2147483647"),
        ("losses", [["adam", 1, 0.003, 1.0]], "losses has .*; a run is"),
        ("losses", [["adam", 1, 0.001, math.nan]], "losses has .*; a run is"),
        ("losses", [["adam", 1, 0.001]], "losses has .*; a run is"),
    ],
)
def test_a_trait_that_cannot_be_is_refused(figure, trait, value, words):
    before = getattr(figure, trait)
    with pytest.raises(ValueError, match=words):
        setattr(figure, trait, value)
    assert getattr(figure, trait) == before


def test_images_that_the_page_cannot_train_on_are_refused():
    data = load_data("digits")
    with pytest.raises(ValueError, match="image 7×8 is not divisible into 2×2 patches"):
        ValleyExplorer(replace(data, image_shape=(1, 7, 8)))
    with pytest.raises(ValueError, match="the images of digits have 512,000 bytes; the page takes at most 200,000"):
        large = data.train.images.repeat(1, 1, 4, 4)
        ValleyExplorer(replace(data, train=Split(large, data.train.labels), image_shape=(1, 32, 32)))
    with pytest.raises(ValueError, match="digits has 1 classes"):
        ValleyExplorer(replace(data, class_names=["digit"]))


def test_the_still_picture_shows_the_runs_that_are_there_and_none_at_first(figure):
    picture, words = figure.still()
    coloured = [int((picture == INKS[optimiser]).all(axis=2).sum()) for optimiser in ("adam", "sgd")]
    assert coloured == [0, 0] and "no dot yet" in words
    figure.losses = [["adam", 1, 0.01, 0.1], ["adam", 1, 1.0, 5.0], ["sgd", 1, 50.0, None]]
    picture, words = figure.still()
    coloured = [(picture == INKS[optimiser]).all(axis=2) for optimiser in ("adam", "sgd")]
    assert [int(mask.sum()) for mask in coloured] == [50, 25] and "3 runs, a dot for each" in words
    low, high = coloured[0][:, :160], coloured[0][:, 160:]
    assert np.argwhere(low)[:, 0].mean() > np.argwhere(high)[:, 0].mean() > np.argwhere(coloured[1])[:, 0].mean()
