"""What the laboratory's page says of its ten experiments is what the figure gives: its runs replay bit for bit."""

import json
import re
from pathlib import Path
from urllib.parse import unquote

import nbformat

from _extensions.chromium import Tab, write_page
from mixer import load_data
from mixer.widgets import TrainingLab

PAGE = Path(__file__).parents[2] / "book" / "lab.ipynb"
LINE = re.compile(r'^\| <a href="#lab=([^"]+)">[^|]+\| ([\d., ]+) \|$', re.MULTILINE)
TRAIN = """async (settings) => {
  const { model } = document.querySelector(".mixer-figure");
  model.set("settings", { ...model.get("settings"), ...settings });
  model.set("running", true);
  do await new Promise(requestAnimationFrame);
  while (model.get("running"));
  return model.get("history").at(-1).validation_accuracy;
}"""


def test_each_experiment_gives_what_the_page_says(browser, tmp_path):
    """The first seed of every line; the others differ from it in the seed alone."""
    text = "\n".join(cell.source for cell in nbformat.read(PAGE, as_version=4).cells)
    lines = {unquote(settings): numbers.split(", ") for settings, numbers in LINE.findall(text)}
    assert len(re.findall("^### ", text, re.MULTILINE)) == 10
    assert len(lines) >= 20
    tab = Tab(browser)
    file = write_page(tmp_path / "page.html", TrainingLab(load_data("digits")))
    for settings, numbers in lines.items():
        page = tab.open(file)
        assert len(numbers) == 3
        found = page.evaluate(f"({TRAIN})({json.dumps(json.loads(settings))})")
        assert f"{100 * found:.1f}" == numbers[0], settings
    assert tab.problems == []
    tab.page.close()
