"""Questions that are answered in the built page: predictions, which cover a result, and formulas of exercises."""

import json
import math
import re
from pathlib import Path

import nbformat
import pytest
from playwright.sync_api import expect

from _extensions.chromium import Tab

BOOK = Path(__file__).parents[2] / "book"
CHAPTERS = sorted(path.stem for path in BOOK.glob("[0-9]*.ipynb"))
ALL = [*CHAPTERS, "lab"]
WAITS, TEXT = ".cell_output.waits", ".bd-article .waits-too"


@pytest.fixture(scope="module")
def tab(browser):
    tab = Tab(browser, reduced_motion="reduce")
    yield tab
    tab.page.close()
    assert tab.problems == []


@pytest.fixture
def page(tab, book):
    """A page of a browser that remembers nothing yet."""
    tab.open(book / "book/about.html")
    tab.page.evaluate("localStorage.clear()")
    return tab.page


def opened(page, book, name):
    page.goto((book / f"book/{name}.html").as_uri())
    return page


@pytest.mark.parametrize("name", ALL)
def test_every_prediction_waits_for_an_answer_and_uncovers_what_it_covers(page, book, name):
    opened(page, book, name)
    folds = page.locator("details.predict")
    count = folds.count()
    assert count >= 3
    for i in range(count):
        fold = folds.nth(i)
        data = fold.evaluate("(fold) => ({ ...fold.dataset })")
        covered, text = page.locator(WAITS).count(), page.locator(TEXT).count()
        assert not fold.evaluate("(fold) => fold.open")
        if "choices" in data:
            choices = data["choices"].split("|")
            assert data["answer"] in choices and len(choices) == len(set(choices)) > 1
        group = page.get_by_role("group", name="Your answer:").first  # that of the first question which is open
        if "choices" in data:
            group.get_by_role("button", name=choices[0], exact=True).click()
            said = choices[0]
        elif data.get("unit") == "%":
            group.get_by_role("slider").fill("80")
            group.get_by_role("button", name="This is my answer").click()
            said = "80 %"
        else:
            group.get_by_role("spinbutton").fill("3")
            group.get_by_role("button", name="This is my answer").click()
            said = "3"
        told = page.locator(".question [role=status]").filter(has_text="You said:").nth(i)
        if name == "lab":
            expect(told).to_have_text(f"You said: {said}. Now try it.")
            fold.locator("summary").click()
        unit = f" {data['unit']}" if "unit" in data else ""
        expect(told).to_have_text(f"You said: {said}. It is: {data['answer']}{unit}.")
        assert fold.evaluate("(fold) => fold.open")
        assert page.locator(WAITS).count() == covered - int(data.get("covers", 0))
        assert (page.locator(TEXT).count() < text) == ("coversText" in data)
    assert page.locator(WAITS).count() == page.locator(TEXT).count() == 0


def test_a_result_is_hidden_until_one_answers_skips_or_opens_the_fold(page, book):
    for act in ("Skip", "Show the result", "fold"):
        page.evaluate("localStorage.clear()")
        opened(page, book, "03_token_mixing")
        output = page.locator(WAITS).first
        printed = output.locator(".output").first
        assert not printed.is_visible()
        if act == "fold":
            page.locator("details.predict[data-covers] summary").click()
        else:
            page.locator(f"{WAITS} button, details.predict[data-covers] ~ [role=group] button").get_by_text(act).click()
        page.wait_for_selector(WAITS, state="detached")
        if act == "Show the result":  # it stays where it is, and the keyboard goes on from there
            assert page.evaluate("document.activeElement.innerText").startswith("shuffled before and after")
        assert page.get_by_text("It is: No.", exact=True).is_visible()
        assert page.get_by_text("shuffled before and after: largest difference above 1").is_visible()


def test_answers_stay_and_the_introduction_counts_them(page, book):
    opened(page, book, "04_channel_mixing").get_by_role("button", name="Neither", exact=True).click()
    page.get_by_role("button", name="Skip").first.click()  # what was skipped is no answer
    page.reload()
    assert page.get_by_text("You said: Neither. It is: Neither.").is_visible()
    row = opened(page, book, "intro").locator("tr", has=page.locator("a[href$='04_channel_mixing.html']"))
    assert "1 of 6 questions answered" in row.inner_text()
    assert page.locator(".answered").count() == len(CHAPTERS)
    opened(page, book, "04_channel_mixing")
    page.get_by_role("button", name="Answer again").last.click()
    assert page.evaluate("document.activeElement.textContent") == "Token mixing"
    assert not page.get_by_text("You said: Neither").is_visible()


def test_tabs_do_not_lose_each_others_answers(page, book):
    opened(page, book, "04_channel_mixing")
    page.evaluate("""localStorage.setItem('mlp-mixer-book: answers', '{"03_token_mixing":{"of another tab":"Yes"}}')""")
    page.get_by_role("button", name="Neither", exact=True).click()
    kept = json.loads(page.evaluate("localStorage.getItem('mlp-mixer-book: answers')"))
    assert kept["03_token_mixing"] == {"of another tab": "Yes"}
    assert list(kept["04_channel_mixing"].values()) == ["Neither"]


def test_the_cover_leads_to_its_question_and_an_experiment_can_be_skipped(page, book):
    opened(page, book, "03_token_mixing").get_by_role("button", name="To the question").click()
    assert page.evaluate("document.activeElement.textContent") == "Yes"
    opened(page, book, "lab").get_by_role("button", name="Skip").first.click()
    assert page.get_by_text("Skipped. Now try it.").is_visible()


def solutions_of(name):
    """The solutions of the exercises with a formula, as functions, in order."""
    found, asked = [], False
    for cell in nbformat.read(BOOK / f"{name}.ipynb", 4).cells:
        asked = asked or 'class="answer"' in cell.source
        if asked and "solution" in cell.metadata.get("tags", []):
            scope, asked = {"math": math}, False
            exec(cell.source.split("\n\n\nprint")[0], scope)
            found.append(scope[re.search(r"def (\w+)", cell.source)[1]])
    return found


@pytest.mark.parametrize("name", CHAPTERS)
def test_the_formula_of_an_exercise_is_that_of_its_solution(page, book, name):
    """And the page asks for as many formulas as there are."""
    opened(page, book, name)
    boxes = page.locator("div.answer")
    for i, solution in enumerate(solutions_of(name)):
        data = boxes.nth(i).evaluate("(box) => ({ ...box.dataset })")
        for trial in data["trials"].split(";"):
            values = dict(zip(data["names"].split(), map(int, trial.split()), strict=True))
            got = page.evaluate("([text, values]) => evaluateFormula(text, values)", [data["formula"], values])
            if name == "03_token_mixing":
                right = [solution(*values.values(), norm) for norm in ("tokens_channels", "channels")]
            else:
                right = solution(*values.values())
            assert got == pytest.approx(list(right) if isinstance(right, (list, tuple)) else [right], rel=1e-9)
        words = boxes.nth(i).locator("label").inner_text()
        assert (": two formulas" in words) == (len(got) == 2) != (": a formula" in words)
    assert boxes.count() == len(solutions_of(name))


def answered(page, text):
    page.locator("div.answer input").fill(text)
    page.locator("div.answer").get_by_role("button", name="Check").click()
    return page.locator("div.answer [role=status]").inner_text()


def test_a_formula_is_checked_in_the_page_and_bad_ones_get_a_sentence(page, book):
    opened(page, book, "01_patches")
    for right in ("H//P * (W//P)", "H*W/P**2", "(H / P) · (W / P)", "H*W / P^2"):
        assert answered(page, right) == "Correct."
    page.reload()
    assert page.locator("div.answer [role=status]").inner_text() == "Correct."
    assert answered(page, "H*W/P") == "Not yet: for H = 8, W = 8, P = 2 it gives 32, and the answer is 16."
    for wrong, sentence in [
        ("", "Write a formula first."),
        ("H*", "The formula ends too early."),
        ("(H", "A parenthesis is not closed."),
        ("2 H", "A sign such as * is missing before “H”."),
        ("rows*W", "“rows” is none of the names here: H, W, P."),
        ("constructor", "“constructor” is none of the names here: H, W, P."),
        ("*H", "A number or a name is missing before “*”."),
        ("H; W", "“;” has no meaning in a formula."),
        ("factorial(10**9)", "Factorials are known here from 0 to 170."),
        ("alert(1)", "“alert” is none of the names here: H, W, P."),
    ]:
        assert answered(page, wrong) == f"Not yet. {sentence}"
    answered(page, " ")
    assert page.evaluate("localStorage.getItem('mlp-mixer-book: answers')") == '{"01_patches":{}}'
    assert answered(page, "H, W") == "Not yet: one formula is asked for."
    assert answered(page, "1/0").startswith("Not yet: for H = 8")


def test_what_the_browser_kept_is_read_only_if_it_can_be(page, book):
    for kept in (
        "{",
        "null",
        "[]",
        json.dumps({"01_patches": 3}),
        json.dumps({"01_patches": {"Exercise 1.1": {"a": 1}}}),
    ):
        page.evaluate("(kept) => localStorage.setItem('mlp-mixer-book: answers', kept)", kept)
        opened(page, book, "01_patches").get_by_role("button", name="No", exact=True).first.click()
        assert page.get_by_text("You said: No. It is: No.").first.is_visible()
        assert answered(page, "H*W/P**2") == "Correct."


def test_a_browser_that_keeps_nothing_still_asks(browser, book):
    tab = Tab(browser)
    tab.page.add_init_script("Object.defineProperty(window, 'localStorage', { get() { throw new Error('no'); } })")
    page = opened(tab.page, book, "01_patches")
    page.get_by_role("button", name="Yes", exact=True).first.click()
    assert page.get_by_text("You said: Yes. It is: No.").is_visible()
    page.close()


def test_text_that_tells_the_result_waits_with_it(page, book):
    opened(page, book, "08_ablations")
    told = page.get_by_text("The gap is many times wider than the groups")
    assert not told.is_visible()
    page.emulate_media(media="print")
    assert told.is_visible()
    page.emulate_media(media="screen")
    page.get_by_role("button", name="Show the result").first.click()
    assert told.is_visible()


def test_text_on_another_subject_does_not_wait(page, book):
    opened(page, book, "08_ablations")
    telling = page.get_by_text("To remove after training says how much")
    assert telling.count() == 1 and not telling.is_visible()
    assert page.get_by_text("Asking many questions.", exact=True).is_visible()


def test_on_paper_nothing_waits(page, book):
    opened(page, book, "03_token_mixing").emulate_media(media="print")
    assert page.get_by_text("shuffled before and after: largest difference above 1").is_visible()
    assert not page.get_by_role("button", name="Skip").first.is_visible()
    page.evaluate("dispatchEvent(new Event('beforeprint')); dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen")
    assert (
        page.evaluate("localStorage.getItem('mlp-mixer-book: answers')") is None
    )  # opened for the paper, not by the reader
