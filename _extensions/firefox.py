"""A stock Firefox for the tests, which Playwright does not drive: it drives one of its own making.

It is spoken to in WebDriver BiDi, the standard that it understands without a driver: w3c.github.io/webdriver-bidi.
"""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import websocket

from _extensions.chromium import HOMES, SETTLED, find

NAMES = ("firefox-esr", "firefox", "/Applications/Firefox.app/Contents/MacOS/firefox")
MISSING = "there is no Firefox for the tests: install it (any version from 129 on), or name it in FIREFOX"
KEYS = {"ArrowLeft": "\ue012", "ArrowRight": "\ue014", "Space": " "}
# No requests of its own, no page of greetings.
PREFERENCES = {
    "app.update.disabledForTesting": True,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "security.fileuri.strict_origin_policy": True,  # as for a reader; remote control relaxes it
    "services.settings.server": "data:,",
    "toolkit.telemetry.server": "data:,",
}


def find_firefox() -> str | None:
    """The path of the browser: $FIREFOX, or one that is installed."""
    return os.environ.get("FIREFOX") or find(NAMES)


class Firefox:
    """One page, and a list of what went wrong in it: errors, and requests of what is not on the disk."""

    def __init__(self, address: str):
        self.problems: list[str] = []
        self.numbers = count()
        self.socket = websocket.create_connection(f"{address}/session", suppress_origin=True, timeout=60)
        self.send("session.new", capabilities={})
        self.send("session.subscribe", events=["log.entryAdded", "network.beforeRequestSent"])
        self.page = self.send("browsingContext.create", type="tab")["context"]  # the first one never has the focus
        self.send("browsingContext.setViewport", context=self.page, viewport={"width": 1280, "height": 900})

    def send(self, method: str, **parameters) -> dict:
        """Send a command; returns its result, and notes the events before it."""
        number = next(self.numbers)
        self.socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while (message := json.loads(self.socket.recv())).get("id") != number:
            if message["type"] == "event":
                self._note(message)
        assert message["type"] == "success", message
        return message["result"]

    def _note(self, event: dict) -> None:
        if event["method"] == "log.entryAdded" and event["params"]["level"] == "error":
            self.problems.append(event["params"]["text"])
        if event["method"] == "network.beforeRequestSent" and event["params"]["context"] == self.page:
            url = event["params"]["request"]["url"]
            self.problems += [] if url.startswith(HOMES) else [f"request of {url}"]

    def evaluate(self, expression: str):
        """The value of a JavaScript expression in the page, or what a promise comes to."""
        text = f"Promise.resolve({expression}).then((value) => JSON.stringify(value) ?? 'null')"
        target = {"context": self.page}
        answer = self.send("script.evaluate", expression=text, target=target, awaitPromise=True)
        assert answer["type"] == "success", answer["exceptionDetails"]["text"]
        return json.loads(answer["result"]["value"])

    def wait_for(self, condition: str) -> None:
        """Wait until a JavaScript expression is true, which is looked at in every frame; after 30 s it fails."""
        answer = self.evaluate(f"""new Promise((done) => {{
          const start = performance.now();
          const look = () => {{
            if ({condition}) done(true);
            else if (performance.now() - start > 30_000) done(false);
            else requestAnimationFrame(look);
          }};
          look();
        }})""")
        assert answer, f"this never came true: {condition}"

    def open(self, path: Path) -> None:
        """Open a file and wait until each of its live figures is alive, or says why it is not."""
        self.send("browsingContext.navigate", context=self.page, url=path.as_uri(), wait="complete")
        self.wait_for(SETTLED)

    def press(self, key: str) -> None:
        strokes = [{"type": kind, "value": KEYS[key]} for kind in ("keyDown", "keyUp")]
        actions = [{"type": "key", "id": "keyboard", "actions": strokes}]
        self.send("input.performActions", context=self.page, actions=actions)


@contextmanager
def started(profile: Path) -> Iterator[Firefox]:
    """A running Firefox with an empty profile; without one the tests fail, they are not skipped."""
    binary = find_firefox()
    assert binary, MISSING
    lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});\n" for name, value in PREFERENCES.items()]
    (profile / "user.js").write_text("".join(lines), encoding="utf-8")
    command = [binary, "--headless", "--no-remote", "--remote-debugging-port=0", "--profile", profile, "about:blank"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, encoding="utf-8", errors="replace")
    try:
        listening = re.compile(r"BiDi listening on (ws://\S+)")
        address = next(found[1] for line in process.stderr if (found := listening.search(line)))
        threading.Thread(target=process.stderr.read, daemon=True).start()  # a full pipe would stop it
        firefox = Firefox(address)
        yield firefox
        firefox.socket.close()
    finally:
        process.terminate()
        process.wait(30)


if __name__ == "__main__":
    sys.exit(None if find_firefox() else MISSING)
