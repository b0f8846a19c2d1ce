"""The patch explorer: its traits, and in Chromium every control, seen by what changed."""

import pytest
import torch

from _extensions.chromium import settle, write_page
from mixer import ImageToPatches
from mixer.widgets import PatchExplorer

IMAGE = torch.arange(3 * 8 * 8, dtype=torch.uint8).reshape(3, 8, 8)


@pytest.fixture
def page(tab, tmp_path):
    return tab.open(write_page(tmp_path / "page.html", PatchExplorer(IMAGE, 4)))


def pixels(page, number):
    """The picture on a canvas of the page, as one string."""
    return page.locator("canvas").nth(number).evaluate("canvas => canvas.toDataURL()")


@pytest.mark.parametrize(
    ("image", "word"),
    [
        (IMAGE.float(), "uint8"),
        (IMAGE[0], "uint8"),
        (IMAGE[:2], "1 or 3 channels"),
        (torch.zeros(3, 96, 96, dtype=torch.uint8), "resize"),
    ],
)
def test_an_image_that_cannot_be_drawn_is_refused(image, word):
    with pytest.raises(ValueError, match=word):
        PatchExplorer(image)


def test_traits_accept_only_what_there_is():
    explorer = PatchExplorer(IMAGE, 2)
    explorer.token = 15
    with pytest.raises(ValueError, match="token is 16; choose from 0 to 15"):
        explorer.token = 16
    with pytest.raises(ValueError, match="patch_size is 3; choose from 1, 2, 4, 8"):
        explorer.patch_size = 3
    explorer.patch_size = 8
    assert explorer.token == 0


def test_sliders_change_table_and_facts(page):
    before = [pixels(page, i) for i in range(3)]
    page.get_by_role("slider", name="Token").press("ArrowRight")
    settle(page)
    assert "row 0, column 1" in page.locator("p[role=status]").inner_text()
    assert all(pixels(page, i) != before[i] for i in range(3))
    page.get_by_role("slider", name="Patch size").press("ArrowLeft")
    settle(page)
    assert "16 tokens × 12 pixels" in page.content()
    page.get_by_role("slider", name="Step").press("End")
    settle(page)
    assert "[n_tokens, n_pixels] = [16, 12]" in page.content()


def test_pointing_lights_the_token_under_the_pointer(page):
    box = page.locator("canvas").nth(0).bounding_box()
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 0.75 * box["height"])
    settle(page)
    assert "Token 3" in page.locator("p[role=status]").inner_text()
    box = page.locator("canvas").nth(1).bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 0.3 * box["height"])
    settle(page)
    assert "Token 1" in page.locator("p[role=status]").inner_text()


def test_play_walks_to_the_table(page):
    page.get_by_role("button", name="Play").press("Enter")
    page.wait_for_function("document.querySelector('.mixer-figure').model.get('stage') === 300")
    assert page.get_by_role("button").inner_text() == "Play"


def test_the_table_is_that_of_the_package(page):
    """In Chromium, the places of the last stage are the rows and columns of ImageToPatches."""
    rows = page.evaluate(
        """async () => {
          const { module } = JSON.parse(document.querySelector("script[type='application/json']").textContent);
          const url = URL.createObjectURL(new Blob([module + "export { places };"], { type: "text/javascript" }));
          return (await import(url)).places([3, 8, 8], 4).stops[3];
        }"""
    )
    table = torch.zeros(4, 48, dtype=torch.uint8)
    for (column, row), value in zip(rows, IMAGE.flatten().tolist(), strict=True):
        table[row, column] = value
    assert torch.equal(table, ImageToPatches(4)(IMAGE[None])[0])


def test_reduced_motion_goes_step_by_step(browser, tmp_path):
    page = browser.new_page(reduced_motion="reduce")
    page.goto(write_page(tmp_path / "page.html", PatchExplorer(IMAGE, 4)).as_uri())
    page.get_by_role("button", name="Play").click()
    assert page.evaluate("document.querySelector('.mixer-figure').model.get('stage')") == 100
    page.close()


@pytest.mark.parametrize("value", [0, -1, 3])
def test_a_patch_size_that_the_image_does_not_have_is_named(page, value):
    """With 0 the lines of the grid would be drawn without end."""
    page.evaluate("(value) => document.querySelector('.mixer-figure').model.set('patch_size', value)", value)
    settle(page)
    assert f"there is no patch size {value}" in page.get_by_role("alert").inner_text()
