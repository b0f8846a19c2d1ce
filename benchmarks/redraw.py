"""How long a redrawing of three live figures takes in Chromium: `python benchmarks/redraw.py` prints it.

A redrawing is what a figure does in one frame after a change. Its time is printed with its share of a frame, of which a
screen shows 60 in a second.
"""

import statistics
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the browser of the tests

from _extensions.chromium import Tab, settle, started, write_page
from mixer import load_checkpoint, load_data, shipped_weights
from mixer.widgets import CostExplorer, FilterExplorer, ValleyExplorer
from mixer.widgets.valley import RATES

FRAME = 1000 / 60  # ms
DIGITS = dict(n_layers=4, n_channel=32, n_hidden=64, n_output=10, image_size=8, patch_size=2, n_image_channel=1)
WATCH = """() => {
  window.times = [];
  const frames = window.requestAnimationFrame;
  window.requestAnimationFrame = (draw) => frames((now) => {
    const start = performance.now();
    draw(now);
    window.times.push(performance.now() - start);
  });
}"""
SLIDE = """async ([which, nPlaces]) => {
  const slider = document.querySelectorAll("input[type=range]")[which];
  for (let i = 0; i < 40; i++) {
    slider.value = (Number(slider.value) + 1) % nPlaces;
    slider.dispatchEvent(new Event("input"));
    await new Promise((done) => setTimeout(done, 50));
  }
}"""
TRAINED = "(n) => document.querySelector('.mixer-figure').model.get('losses').length === n"


def move_filter(page) -> None:
    """Move the filter over every pixel of a photograph."""
    page.get_by_label("Every pixel").check()
    settle(page)
    page.evaluate(WATCH)
    page.evaluate(SLIDE, [0, 60])


def change_layers(page) -> None:
    page.evaluate(WATCH)
    page.evaluate(SLIDE, [2, 2])


def train_all_rates(page) -> None:
    """Train with every rate three times, and watch the third, with two sweeps drawn already."""
    for n_sweeps in (1, 2, 3):
        if n_sweeps == 3:
            page.evaluate(WATCH)
        page.get_by_role("button", name="Train all rates").click()
        page.wait_for_function(TRAINED, arg=n_sweeps * len(RATES))
        settle(page)


def figures():
    """Each figure with what is done to it."""
    model, about = load_checkpoint(shipped_weights("cifar10-jpeg"))
    linear = model.per_patch.linear
    photograph = torch.randint(0, 256, (3, 64, 96), dtype=torch.uint8)
    yield FilterExplorer(photograph, linear.weight[:24], linear.bias[:24], about["mean"], about["std"]), move_filter
    yield CostExplorer({"digits": DIGITS}), change_layers
    valley = ValleyExplorer(load_data("digits"))
    valley.optimiser = "adam"
    yield valley, train_all_rates


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, started() as browser:
        for figure, work in figures():
            page = Tab(browser).open(write_page(Path(folder) / "page.html", figure))
            work(page)
            times = page.evaluate("window.times")
            median, name = statistics.median(times), type(figure).__name__
            print(f"{name:16}{len(times):4} redrawings, median {median:5.1f} ms, {median / FRAME:4.0%} of a frame")


if __name__ == "__main__":
    main()
