"""Every page of the built book in Firefox, opened from the disk: alive, without an error, and every control works."""

import pytest

from _extensions.chromium import SHOWN
from _extensions.firefox import started

FIGURES = "[...document.querySelectorAll('.mixer-figure')]"
DEAD = f"""{FIGURES}.filter(
  (figure) => !figure.querySelector(".mx canvas, .mx svg") || figure.querySelector("[role=alert]")
    || figure.querySelector(".mixer-still")?.checkVisibility()
).length"""
UNSET = """document.querySelectorAll("span.math, div.math").length
  - document.querySelectorAll("mjx-container").length"""
CONTROLS = """Object.assign(window, {
  controls: [...document.querySelectorAll(".mx:not(.mx-lab)")].flatMap((figure) =>
    [...figure.querySelectorAll("summary, input:not([type=radio]), select, button")].map(
      (control) => ({ figure, control }))),
  shown: %s,
}).controls.length"""
# Focus a control and keep what its figure shows, once everything is drawn: the key that changes it, or none.
FOCUS = """new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => {
  const { figure, control } = controls[%d];
  const { type, min, max, value } = control;
  control.focus();
  figure.remembered = shown(figure);
  if (type === "range") done(+min < +max && (value === max ? "ArrowLeft" : "ArrowRight"));
  else done(type === "select-one" ? "list" : control.ariaPressed !== "true" && "Space");
})))"""
# A list is set, as its menu is the system's own.
CHOOSE = """(({ control }) => {
  control.selectedIndex = control.selectedIndex ? 0 : 1;
  ["input", "change"].forEach((name) => control.dispatchEvent(new Event(name, { bubbles: true })));
})(controls[%d])"""


@pytest.fixture(scope="module")
def firefox(tmp_path_factory):
    with started(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


def test_a_page_is_alive_and_every_control_of_its_figures_works(firefox, book, name):
    firefox.open(book / f"{name}.html")
    firefox.wait_for(f"!({UNSET})")  # mathematics is set
    assert firefox.evaluate(DEAD) == 0
    for i in range(firefox.evaluate(CONTROLS % SHOWN)):
        key = firefox.evaluate(FOCUS % i)
        if key == "list":
            firefox.evaluate(CHOOSE % i)
        elif key:
            firefox.press(key)
        if key:
            firefox.wait_for(f"shown(controls[{i}].figure) !== controls[{i}].figure.remembered")
    assert firefox.evaluate(DEAD) == 0
    firefox.wait_for("document.fonts.status === 'loaded'")  # a font that is left behind is an error to Firefox
    problems, firefox.problems = firefox.problems, []  # of this page alone
    assert not problems, "\n".join(problems)
