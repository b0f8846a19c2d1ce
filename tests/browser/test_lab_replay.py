"""The same settings give the same run bit for bit: in a worker, on the page's own thread, in pieces, and everywhere."""

import json

import pytest

from _extensions.chromium import Tab, write_page
from _extensions.firefox import started as firefox_started
from mixer import load_data
from mixer.widgets import TrainingLab

MODEL = "document.querySelector('.mixer-figure').model"
WEIGHTS = f"Array.from(new Uint8Array({MODEL}.get('weights').buffer))"
NO_WORKER = "window.Worker = class { constructor() { throw new Error('none'); } };"
SMALL = dict(n_layers=1, n_channel=8, n_hidden=8)
FINISHED = "document.querySelectorAll('[role=status]')[%d].innerText.startsWith('Finished')"
PLACES = pytest.mark.parametrize("script", ["", NO_WORKER], ids=["worker", "own thread"])
# Pauses at every third message, wherever the run is then, and goes on once it stands still: first by a single step.
IN_PIECES = """() => {
  const model = document.querySelector(".mixer-figure").model;
  const step = [...document.querySelectorAll("button")].find((button) => button.textContent === "Step");
  const [n, run] = [model.get("settings").n_epochs, () => model.set("running", true)];
  let nHeard = 0;
  window.stops = [];
  model.on("change:step", () => {
    if (model.get("running") && ++nHeard % 3 === 0) model.set("running", false);
  });
  model.on("change:weights", () => {
    if (model.get("history").length === n) return;
    stops.push(model.get("step"));
    setTimeout(() => (stops.length % 2 ? step.click() : run()));
  });
  run();
}"""


@pytest.fixture(scope="session")
def digits():
    return load_data("digits")


def test_a_run_replays_bit_for_bit_everywhere(browser, tmp_path_factory, tmp_path, digits):
    settings = dict(affine=1.0, warm_up=0.1, weight_decay=0.1, label_smoothing=0.1, n_epochs=60)
    page_file = write_page(tmp_path / "page.html", TrainingLab(digits, **settings, **SMALL))
    start, runs, stops = f"() => void {MODEL}.set('running', true)", [], []
    for script, begin in (("", start), (NO_WORKER, start), ("", IN_PIECES), (NO_WORKER, IN_PIECES)):
        tab = Tab(browser)
        tab.page.add_init_script(script)
        page = tab.open(page_file)
        page.evaluate(begin)
        page.wait_for_function(FINISHED % 0)
        runs.append(page.evaluate(f"[{WEIGHTS}, {MODEL}.get('history').map((record) => record.validation_loss)]"))
        stops.append(page.evaluate("window.stops ?? []"))
        assert tab.problems == []
        page.close()
    assert min(map(len, stops[2:])) >= 2  # it was in pieces
    with firefox_started(tmp_path_factory.mktemp("profile")) as firefox:
        firefox.open(page_file)
        firefox.evaluate(f"({start})()")
        firefox.wait_for(FINISHED % 0)
        found = f"[{WEIGHTS}, {MODEL}.get('history').map((record) => record.validation_loss)]"
        runs.append(json.loads(firefox.evaluate(f"JSON.stringify({found})")))
        assert firefox.problems == []
    assert all(run == runs[0] for run in runs)


@PLACES
def test_two_labs_that_train_at_once_are_each_as_if_alone(browser, tmp_path, digits, script):
    labs = [TrainingLab(digits, n_epochs=4, seed=seed, **SMALL) for seed in (1, 2)]
    model = "document.querySelectorAll('.mixer-figure')[%d].model"
    found = []
    for figures in (labs, labs[:1], labs[1:]):
        tab = Tab(browser)
        tab.page.add_init_script(script)
        page = tab.open(write_page(tmp_path / "page.html", *figures))
        for button in page.get_by_role("button", name="Train", exact=True).all():
            button.click()
        for i in range(len(figures)):
            page.wait_for_function(FINISHED % i)
            found.append(page.evaluate(WEIGHTS.replace(MODEL, model % i)))
        assert tab.problems == []
        page.close()
    assert found[:2] == found[2:]
    assert found[0] != found[1]
