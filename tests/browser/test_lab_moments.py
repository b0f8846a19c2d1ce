"""The moment that the laboratory shows: its slider, status, headings and pictures belong to one epoch."""

import re

import pytest

from _extensions.chromium import settle, write_page
from mixer import load_data
from mixer.widgets import TrainingLab

MODEL = "document.querySelector('.mixer-figure').model"
STATUS = "document.querySelector('[role=status]').innerText"
SMALL = dict(n_layers=1, n_channel=8, n_hidden=8)
LIMIT = "const MOST_BYTES = 200e6;"  # of the weights that are kept


@pytest.fixture(scope="session")
def digits():
    return load_data("digits")


def opened(tab, tmp_path, lab):
    return tab.open(write_page(tmp_path / "page.html", lab))


def press(page, name, times=1):
    for _ in range(times):
        page.get_by_role("button", name=name, exact=True).click()
        settle(page)


def step(page, n):
    """Take batches one by one, until so many are done."""
    for i in range(page.evaluate(f"{MODEL}.get('step')") + 1, n + 1):
        page.get_by_role("button", name="Step", exact=True).click()
        page.wait_for_function(f"{MODEL}.get('step') === {i}")
    settle(page)


def shown(page):
    """The epoch of the slider and that of the status, in words, and the numbers and the maps that stand there."""
    epoch = page.get_by_role("slider", name="Epoch").get_attribute("aria-valuetext")
    said = re.match(r"Epoch (\S+) of", page.evaluate(STATUS))
    maps = page.locator(".mx-layers canvas").first.evaluate("(canvas) => canvas.toDataURL()")
    return epoch, said and said[1], page.locator(".mx-wide .mx-title").first.inner_text(), maps


def test_epochs_are_shown_whole_where_weights_are_thinned(tab, tmp_path, digits):
    """Every moment that the slider can show is the one that a page with all weights shows."""
    found = []
    for limit in (LIMIT, "const MOST_BYTES = 30e3;"):
        path = write_page(tmp_path / "page.html", TrainingLab(digits, n_epochs=9, **SMALL))
        text = path.read_text()
        assert text.count(LIMIT) == 1
        path.write_text(text.replace(LIMIT, limit))
        page = tab.open(path)
        press(page, "Train")
        page.wait_for_function(f"{STATUS}.startsWith('Finished')")
        settle(page)
        bar = page.get_by_role("slider", name="Epoch")
        moments = {}
        for _ in range(int(bar.get_attribute("max"))):
            bar.press("ArrowLeft")
            settle(page)
            epoch, *rest = shown(page)
            assert rest[0] == epoch
            moments[epoch] = rest
        assert bar.input_value() == "0"
        losses = page.evaluate(f"{MODEL}.get('history').map((record) => record.train_loss.toFixed(3))")
        assert all(f"Loss: {losses[int(epoch) - 1]} training" in moments[epoch][1] for epoch in moments if epoch != "0")
        found.append(moments)
    whole, thinned = found
    assert len(whole) == 9 and 2 <= len(thinned) < 9
    assert all(whole[epoch] == moment for epoch, moment in thinned.items())


def test_an_epoch_counts_once_it_is_done(tab, tmp_path, digits):
    page = opened(tab, tmp_path, TrainingLab(digits, n_epochs=2, n_train=192, batch_size=32, **SMALL))
    said = []
    for n in range(1, 12):
        step(page, n)
        said.append(shown(page)[1])
    assert said == ["0.1", "0.3", "0.5", "0.6", "0.8", "1", "1.1", "1.3", "1.5", "1.6", "1.8"]
    heading = page.locator(".mx-wide .mx-title").first
    assert heading.inner_text().startswith("Loss: ")  # those of the last full epoch, as the answers are
    mistakes = page.locator(".mx-matrix")
    assert " answered wrongly after epoch 1. " in mistakes.inner_text()
    page.evaluate(f"{MODEL}.set('settings', {{ ...{MODEL}.get('settings'), batch_size: 1 }})")
    press(page, "Reset")
    settle(page)
    assert " answered wrongly. " in mistakes.inner_text()
    step(page, 1)
    assert page.evaluate(STATUS) == "Epoch 0.005 of 2."
    assert heading.inner_text() == "Loss"


def test_the_last_place_of_the_slider_is_where_the_run_stands(tab, tmp_path, digits):
    page = opened(tab, tmp_path, TrainingLab(digits, n_epochs=9, n_train=160, batch_size=32, **SMALL))
    step(page, 15)
    whole = shown(page)
    step(page, 16)
    between = shown(page)
    assert (whole[:2], between[:2]) == (("3", "3"), ("3.2", "3.2"))
    bar = page.get_by_role("slider", name="Epoch")
    for key, expected in (("ArrowLeft", whole), ("End", between), ("Home", None), ("End", between)):
        bar.press(key)
        settle(page)
        assert expected in (None, shown(page))
    bar.press("ArrowLeft")
    step(page, 17)
    assert shown(page)[0] == "3.4"  # a run that goes on is shown
