"""A real browser for the tests: Chromium, driven by Playwright, with no way out of this machine."""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Locator, Page, TimeoutError, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# What a live figure holds, in the HTML of a page: the state, the module and the style, as JSON.
PAYLOAD = re.compile(r'<div class="mixer-figure">.*?<script type="application/json">(.*?)</script>', re.DOTALL)
SETTLED = "[...document.querySelectorAll('.mixer-figure')].every((f) => f.querySelector('.mx, [role=alert]'))"
HOMES = ("file:", "data:", "blob:", "about:")  # what lies in a page or on the disk
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")


def find(names: Iterable[str]) -> str | None:
    """The path of the first program that is installed, and not as a snap: these do not see the pages in /tmp."""
    paths = [Path(path) for path in map(shutil.which, names) if path]
    return next((str(path) for path in paths if b"/snap/" not in bytes(path) + path.read_bytes()[:4000]), None)


def find_chromium() -> str | None:
    """The path of the browser: $CHROMIUM, or one that is installed; None leaves it to Playwright's own."""
    return os.environ.get("CHROMIUM") or find(NAMES)


def is_there() -> bool:
    """Whether there is a browser for the tests."""
    with sync_playwright() as playwright:
        return bool(find_chromium()) or Path(playwright.chromium.executable_path).is_file()


@contextmanager
def started() -> Iterator[Browser]:
    """A running browser; without one the tests fail, they are not skipped."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=[*FLAGS, "--no-first-run"])
        yield browser
        browser.close()


class Tab:
    """A page that writes down every error and every request that leaves its home: the disk, or one web server."""

    def __init__(self, browser: Browser, home: str = "file:", **options):
        self.home = home
        self.page: Page = browser.new_page(**{"viewport": {"width": 1280, "height": 900}, **options})
        self.problems: list[str] = []
        self.page.on("console", lambda message: message.type == "error" and self.problems.append(message.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", lambda request: self._note(request.url))

    def _note(self, url: str) -> None:
        if not url.startswith((self.home, *HOMES[1:])):
            self.problems.append(f"request of {url}")

    def open(self, place: Path | str) -> Page:
        """Open a file or an address and wait until each of its live figures is alive, or says why it is not."""
        self.page.goto(place if isinstance(place, str) else place.as_uri())
        self.page.wait_for_function(SETTLED)
        return self.page


# What a live figure shows beside its controls: the pixels of its canvases, its elements with their colours and words.
SHOWN = """(figure) => {
  const rest = figure.cloneNode(true);
  rest.querySelectorAll(".mx-control, input, select, button").forEach((control) => control.remove());
  return [...figure.querySelectorAll("canvas")].map((canvas) => canvas.toDataURL()).join() + rest.innerHTML;
}"""
TWO_FRAMES = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done())))"


def settle(page: Page) -> None:
    """Wait until everything that was asked for is drawn: a figure draws in the next frame."""
    page.evaluate(TWO_FRAMES)


def remember(figure: Locator) -> None:
    """Keep in the page what a live figure shows; see `wait_until_changed`."""
    settle(figure.page)
    figure.evaluate(f"(figure) => {{ figure.remembered = ({SHOWN})(figure); }}")


def wait_until_changed(figure: Locator, cause: object) -> None:
    """Wait until a live figure shows something else than what `remember` kept; fails where it never does."""
    try:
        changed = f"(figure) => ({SHOWN})(figure) !== figure.remembered"
        figure.page.wait_for_function(changed, arg=figure.element_handle())
    except TimeoutError:
        raise AssertionError(f"the figure shows the same as before: {cause}") from None


def evaluate_within(page: Page, seconds: float, code: str, *given: object) -> object:
    """What a function or its promise gives in a page, given values as JSON; it fails, and is ended, if it is slower."""
    session = page.context.new_cdp_session(page)  # later it could not reach a page that hangs
    call = f"({code})({', '.join(map(json.dumps, given))})"
    try:
        with page.expect_console_message(lambda message: message.type == "debug", timeout=1000 * seconds) as answer:
            page.evaluate(f"void setTimeout(async () => console.debug(JSON.stringify([await {call}])))")
        return json.loads(answer.value.text)[0]
    except TimeoutError:
        session.send("Runtime.terminateExecution")
        raise AssertionError(f"the page took longer than {seconds} s, or failed") from None
    finally:
        session.detach()


def write_page(path: Path, *figures) -> Path:
    """A page that holds nothing but live figures, as they stand in the built book."""
    body = "\n".join(figure.to_html() for figure in figures)
    path.write_text(f"<!doctype html><html data-theme='light'><meta charset='utf-8'><body>{body}</body></html>")
    return path


if __name__ == "__main__":
    sys.exit(0 if is_there() else "there is no Chromium for the tests yet")
