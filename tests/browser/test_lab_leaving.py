"""A laboratory that trains in the background, behind another page, taken away from its page, and without a worker."""

import json
import time

import pytest

from _extensions.chromium import FLAGS, Tab, find_chromium, settle, write_page
from mixer import load_data
from mixer.widgets import TrainingLab

MODEL = "document.querySelector('.mixer-figure').model"
WEIGHTS = f"Array.from(new Uint8Array({MODEL}.get('weights').buffer))"
NO_WORKER = "window.Worker = class { constructor() { throw new Error('none'); } };"
SMALL = dict(n_layers=1, n_channel=8, n_hidden=8)
PLACES = pytest.mark.parametrize("script", ["", NO_WORKER], ids=["worker", "own thread"])
FINISHED = f"{MODEL}.get('history').length === %d && !{MODEL}.get('running')"


@pytest.fixture(scope="session")
def digits():
    return load_data("digits")


@pytest.fixture(scope="module")
def reader(browser):
    """A browser as a reader has it, which keeps a page that was left, to go back to it; Playwright's has that off."""
    off = ["--disable-back-forward-cache"]
    options = dict(executable_path=find_chromium(), args=[*FLAGS, "--no-first-run"], ignore_default_args=off)
    browser = browser.browser_type.launch(**options)
    yield browser
    browser.close()


class PlainTab:
    """A tab that can be hidden by another, and a list of what went wrong in it; Playwright's own are always visible."""

    def __init__(self, browser, script: str = ""):
        self.browser, self.problems, self.answers, self.n_sent = browser.new_browser_cdp_session(), [], {}, 0
        self.browser.on("Target.receivedMessageFromTarget", self._hear)
        self.target = self.browser.send("Target.createTarget", {"url": "about:blank"})["targetId"]
        self.session = self.browser.send("Target.attachToTarget", {"targetId": self.target})["sessionId"]
        for domain in ("Runtime", "Log", "Page"):
            self.send(f"{domain}.enable")
        self.send("Page.addScriptToEvaluateOnNewDocument", source=script)

    def _hear(self, event: dict) -> None:
        message = json.loads(event["message"])
        about = message.get("params", {})
        is_error = "error" in (about.get("type"), about.get("entry", {}).get("level"))
        if "id" in message:
            self.answers[message["id"]] = message
        elif message["method"] == "Runtime.exceptionThrown" or (is_error and "favicon" not in str(about)):
            self.problems.append(about)

    def send(self, method: str, **parameters) -> dict:
        self.n_sent = number = self.n_sent + 1
        message = json.dumps({"id": number, "method": method, "params": parameters})
        self.browser.send("Target.sendMessageToTarget", {"sessionId": self.session, "message": message})
        while number not in self.answers:
            self.browser.send("Browser.getVersion")  # Playwright hears events while it waits for an answer
            time.sleep(0.005)
        return self.answers.pop(number)["result"]

    def evaluate(self, expression: str):
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Wait until an expression is true, in a page that may have no frames; after 60 s it fails."""
        end = time.monotonic() + 60
        while not self.evaluate(f"Boolean({condition})"):
            assert time.monotonic() < end, f"this never came true: {condition}"
            time.sleep(0.02)

    def open(self, address: str) -> None:
        self.send("Page.navigate", url=address)
        self.wait_for(f"location.href === {address!r} && document.querySelector('.mx, .other')")

    def train(self, button: str = "Train") -> None:
        """Press a button, and wait until the training has begun; under load it may be over when one looks.

        The button has its name back a frame after the run before has ended.
        """
        self.evaluate(f"void (window.isBegun = false, {MODEL}.on('change:running', () => (window.isBegun = true)))")
        found = f"[...document.querySelectorAll('button')].find((button) => button.textContent === {button!r})"
        self.wait_for(found)
        self.evaluate(f"{found}.click()")
        self.wait_for(f"window.isBegun && {MODEL}.get('step') > 0")

    def close(self) -> None:
        self.browser.send("Target.closeTarget", {"targetId": self.target})


def test_training_goes_on_in_the_background_and_all_is_there_on_return(reader, tmp_path, digits):
    page_file = write_page(tmp_path / "page.html", TrainingLab(digits, n_epochs=150, **SMALL))
    found = []
    for script in ("", NO_WORKER):
        tab = PlainTab(reader, script)
        tab.open(page_file.as_uri())
        tab.train("Train 3 seeds")
        front = PlainTab(reader)
        tab.wait_for("document.hidden")
        assert tab.evaluate(f"{MODEL}.get('runs').length < 3")
        tab.wait_for(f"{MODEL}.get('runs').length === 3 && !{MODEL}.get('running')")
        assert tab.evaluate("document.hidden")
        front.close()
        tab.wait_for("!document.hidden && document.querySelectorAll('.mx-dots i').length === 3")
        tab.wait_for("document.querySelector('[role=status]').innerText.startsWith('Finished')")
        points = "document.querySelector('.mx-train').getAttribute('points').split(' ').length"
        assert tab.evaluate(f"[{points}, document.querySelector('input[type=range]').value]") == [150, "150"]
        losses = f"{MODEL}.get('runs').map(({{ history }}) => history.map((record) => record.train_loss))"
        found.append([tab.evaluate(losses), tab.evaluate(WEIGHTS)])
        assert tab.problems == []
        tab.close()
    assert found[0] == found[1]


@PLACES
def test_a_page_that_is_left_while_it_trains_is_right_on_return(reader, served, digits, script):
    """Back from another page, where the browser goes on with what it has kept; then loaded anew; then closed."""
    folder, address = served
    write_page(folder / "page.html", TrainingLab(digits, n_epochs=60, **SMALL))
    (folder / "other.html").write_text("<p class='other'>another page")
    tab = PlainTab(reader, script)
    tab.open(f"{address}page.html")
    tab.train()
    tab.evaluate("void (window.isKept = true)")
    tab.open(f"{address}other.html")
    tab.evaluate("history.back()")
    tab.wait_for("document.querySelector('.mx')")
    if not tab.evaluate("window.isKept"):
        tab.train()
    tab.wait_for(FINISHED % 60)
    kept = tab.evaluate(WEIGHTS)
    tab.train()
    tab.send("Page.reload")
    tab.wait_for(f"document.querySelector('.mx') && !{MODEL}.get('history').length")
    tab.train()
    tab.wait_for(FINISHED % 60)
    assert tab.evaluate(WEIGHTS) == kept
    tab.train()
    assert tab.problems == []
    tab.close()
    other = PlainTab(reader)
    assert other.evaluate("1 + 1") == 2
    other.close()


@PLACES
def test_a_figure_that_is_taken_away_stops_and_comes_back_whole(tab, tmp_path, digits, script):
    tab.page.add_init_script(script)
    page = tab.open(write_page(tmp_path / "page.html", TrainingLab(digits, n_epochs=500, **SMALL)))
    page.evaluate("void (window.figure = document.querySelector('.mixer-figure'))")
    page.get_by_role("button", name="Train", exact=True).click()
    page.wait_for_function("figure.model.get('step') > 0")
    assert len(page.workers) == (0 if script else 1)
    page.evaluate("figure.remove()")
    page.wait_for_function("!figure.model.get('running')")
    settle(page)
    step = page.evaluate("figure.model.get('step')")
    while page.workers:
        page.wait_for_timeout(20)
    page.evaluate("document.body.append(figure)")
    assert page.evaluate("figure.model.get('step')") == step
    page.get_by_role("button", name="Train", exact=True).click()
    page.wait_for_function("figure.model.get('running') && figure.model.get('history').length > 0")


def test_a_page_that_forbids_workers_trains_on_its_own_thread(browser, tmp_path, digits):
    path = write_page(tmp_path / "page.html", TrainingLab(digits, n_epochs=2, **SMALL))
    policy = """<meta http-equiv="Content-Security-Policy" content="worker-src 'none'">"""
    path.write_text(path.read_text().replace("<meta charset='utf-8'>", f"<meta charset='utf-8'>{policy}"))
    tab = Tab(browser)
    page = tab.open(path)
    page.get_by_role("button", name="Train", exact=True).click()
    page.wait_for_function(FINISHED % 2)
    assert all("Content Security Policy" in problem for problem in tab.problems)
    page.close()
