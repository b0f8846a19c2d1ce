"""The patch explorer: its traits, and in Chromium every control, seen by what changed."""

import pytest
import torch

from _extensions.chromium import Tab, settle, write_page
from mixer import ImageToPatches
from mixer.widgets import PatchExplorer

IMAGE = torch.arange(3 * 8 * 8, dtype=torch.uint8).reshape(3, 8, 8)

WAY, WHOLE, TABLE = range(3)  # the canvases, from top to bottom


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
    assert all(pixels(page, i) != before[i] for i in (WAY, WHOLE))
    assert page.locator(".mx-frame").evaluate("frame => frame.style.top") == "25%"
    page.get_by_role("slider", name="Patch size").press("ArrowLeft")
    settle(page)
    assert "16 tokens × 12 numbers" in page.content()
    page.get_by_role("slider", name="Step").press("End")
    settle(page)
    assert "[n_tokens, n_pixels] = [16, 12]" in page.content()


def at(page, canvas, x, y):
    """A point on a canvas, in shares of its sides, in pixels of the page."""
    page.locator("canvas").nth(canvas).scroll_into_view_if_needed()
    box = page.locator("canvas").nth(canvas).bounding_box()
    return box["x"] + x * box["width"], box["y"] + y * box["height"]


POINTS = [(WHOLE, (0.75, 0.75), 3), (TABLE, (0.1, 0.3), 1), (WAY, (0.45, 0.75), 2)]


def facts(page):
    settle(page)
    return page.locator("p[role=status]").inner_text()


@pytest.mark.parametrize(("canvas", "point", "token"), POINTS)
def test_pointing_lights_the_token_under_the_pointer(page, canvas, point, token):
    page.mouse.move(*at(page, canvas, *point))
    assert facts(page).startswith(f"Token {token}:")


@pytest.mark.parametrize(("canvas", "point", "token"), POINTS)
def test_a_tap_does_what_pointing_does(browser, tmp_path, canvas, point, token):
    tab = Tab(browser, has_touch=True, viewport={"width": 390, "height": 800})
    page = tab.open(write_page(tmp_path / "page.html", PatchExplorer(IMAGE, 4)))
    page.touchscreen.tap(*at(page, canvas, *point))
    assert facts(page).startswith(f"Token {token}:")
    page.close()
    assert tab.problems == []


def numbers(page):
    return [int(text) for text in page.locator(".mx-numbers text").all_text_contents()]


def test_the_row_of_the_table_is_written_number_by_number(page):
    page.get_by_role("slider", name="Token").fill("2")
    settle(page)
    assert numbers(page) == ImageToPatches(4)(IMAGE[None])[0, 2].tolist()
    page.get_by_role("slider", name="Patch size").press("ArrowRight")
    settle(page)
    assert numbers(page) == IMAGE.flatten().tolist()


def test_numbers_without_room_are_left_out(tab, tmp_path):
    image = torch.zeros(1, 32, 32, dtype=torch.uint8)
    page = tab.open(write_page(tmp_path / "page.html", PatchExplorer(image, 16)))
    assert not page.locator(".mx-numbers svg").count()
    assert "up to 8 × 8" in page.content()


def test_without_the_permute_the_rows_are_those_of_a_reshape_alone(page):
    page.get_by_role("slider", name="Token").fill("1")
    before = [pixels(page, i) for i in range(3)]
    page.get_by_label("Leave the permute out").check()
    settle(page)
    split = IMAGE.reshape(1, 3, 2, 4, 2, 4)
    assert numbers(page) == split.reshape(1, 4, 48)[0, 1].tolist()
    assert "Without the permute, 16 of the 48 numbers in row 1" in facts(page)  # the right half of four green rows
    page.get_by_role("slider", name="Step").fill("200")
    settle(page)
    assert "no permute: still [C_in, H/P, P, W/P, P] = [3, 2, 4, 2, 4]" in page.content()
    assert all(pixels(page, i) != before[i] for i in range(3))


def test_what_is_lit_keeps_its_colours(tab, tmp_path):
    """The rim stands around the pixels of the patch and covers none of them, nor does the grid."""
    image = torch.full((1, 8, 8), 200, dtype=torch.uint8)
    page = tab.open(write_page(tmp_path / "page.html", PatchExplorer(image, 2)))
    read = """canvas => {
      const { data } = canvas.getContext("2d").getImageData(3, 3, 96, 96); // the first patch, inside its rim
      return data.every((byte, i) => byte === (i % 4 === 3 ? 255 : 200));
    }"""
    assert page.locator("canvas").nth(WHOLE).evaluate(read)


def test_dragging_the_step_ends_the_play(page):
    page.get_by_role("button", name="Play").click()
    page.get_by_role("button", name="Pause").wait_for()
    page.get_by_role("slider", name="Step").fill("42")
    page.get_by_role("button", name="Play").wait_for()
    settle(page)
    assert page.evaluate("document.querySelector('.mixer-figure').model.get('stage')") == 42


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
          return (await import(url)).places([3, 8, 8], 4, true).stops[3];
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
