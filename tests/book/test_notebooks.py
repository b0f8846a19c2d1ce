"""What every committed chapter must hold to; nbval itself re-runs them and compares their outputs."""

import base64
import json
from pathlib import Path

import nbformat
import pytest
import yaml

import mixer.widgets  # noqa: F401  (defines every kind of live figure)
from _extensions.chromium import PAYLOAD
from mixer.widgets.figure import FOLDER, LiveFigure

ROOT = Path(__file__).parents[2]

PAGES = sorted((ROOT / "book").glob("*.ipynb"))
CHAPTERS = [page for page in PAGES if page.stem[0].isdigit()]  # the others are appendices, without exercises
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))

each_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
each_chapter = pytest.mark.parametrize("path", CHAPTERS, ids=lambda path: path.stem)


def cells(path, kind="code"):
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == kind and cell.source.strip()]


def tags(cell):
    return cell.metadata.get("tags", [])


def code_lines(cell):
    return [line for line in cell.source.splitlines() if line.strip()]


def printed(cell):
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


@each_page
def test_it_is_in_the_table_of_contents(path, pages):
    assert f"book/{path.stem}" in pages


@each_page
def test_it_begins_with_the_same_set_up(path):
    first = cells(path)[0]
    assert first.source == cells(CHAPTERS[0])[0].source
    assert f"git+{CONFIG['repository']['url']}" in first.source


@each_page
def test_it_was_executed_in_order_and_without_error(path):
    assert [cell.execution_count for cell in cells(path)] == list(range(1, len(cells(path)) + 1))
    for cell in cells(path):
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
            assert output.get("name") != "stderr", cell.source


@each_page
def test_every_figure_has_alt_text(path):
    for cell in cells(path):
        if any({"image/png", "image/svg+xml"} & output.get("data", {}).keys() for output in cell.outputs):
            alt = cell.metadata.get("mystnb", {}).get("image", {}).get("alt", "")
            assert len(alt.split()) >= 5, cell.source


@each_page
def test_cells_are_short_and_well_explained(path):
    lines = [len(code_lines(cell)) for cell in cells(path)]
    words = sum(len(cell.source.split()) for cell in cells(path, "markdown"))
    assert max(lines) <= 20
    assert sorted(lines)[len(lines) // 2] <= 6
    assert words >= 10 * sum(lines)
    assert path.stat().st_size < 1_000_000


@each_page
def test_few_outputs_are_exempt_from_comparison(path):
    exempt = [cell for cell in cells(path) if "nbval-ignore-output" in tags(cell)]
    assert len(exempt) <= len(cells(path)) / 10


def test_cells_print_numbers_rather_than_verdicts():
    lines = [line for path in PAGES for cell in cells(path) for line in printed(cell).splitlines()]
    assert len([line for line in lines if line.endswith(("True", "False"))]) <= 10


@each_chapter
def test_exercises_pass_solved_and_fail_unsolved(path):
    """The outputs that nbval reproduces: each stub is told what is missing, each solution is accepted."""
    kinds = [kind for cell in cells(path) for kind in tags(cell) if kind in ("check", "exercise", "solution")]
    assert len(kinds) >= 9
    assert kinds == ["check", "exercise", "solution"] * (len(kinds) // 3)
    for cell in cells(path):
        if "exercise" in tags(cell):
            assert printed(cell).startswith("Not yet: "), cell.source
            assert "pass  # your code" in cell.source
        if "solution" in tags(cell):
            assert printed(cell) == "Correct.\n", cell.source


@each_chapter
def test_it_asks_for_predictions(path):
    text = "\n".join(cell.source for cell in cells(path, "markdown"))
    assert text.count("<b>Predict first:</b>") >= 3


@each_page
def test_live_figures_hold_the_present_module_and_style(path):
    """A page shows what was committed, so a change in mixer/widgets/ asks for `make notebooks`."""
    modules = {kind._esm for kind in LiveFigure.__subclasses__()}
    engine = base64.b64encode((FOLDER / "engine.wasm").read_bytes()).decode()
    for cell in cells(path):
        for output in cell.outputs:
            for payload in PAYLOAD.findall(output.get("data", {}).get("text/html", "")):
                stored = json.loads(payload)
                assert stored["module"] in modules, cell.source
                assert stored["css"] == LiveFigure._css, cell.source
                held = stored["state"].get("engine", {"base64": ""})["base64"]
                assert held in ("", engine), cell.source  # some figures compute nothing


@each_page
def test_it_asks_colab_for_a_gpu_if_it_takes_another_path_there(path):
    takes_it = any("torch.cuda.is_available()" in cell.source for cell in cells(path))
    assert (nbformat.read(path, 4).metadata.get("accelerator") == "GPU") == takes_it
    if takes_it:
        assert any("Runtime → Change runtime type" in cell.source for cell in cells(path, "markdown"))
