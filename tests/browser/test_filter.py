"""The explorer of filters: held against PyTorch's convolution, and in Chromium every control."""

import pytest
import torch
import torch.nn.functional as F

from _extensions.chromium import settle, write_page
from mixer import ImageToPatches, PerPatchMLP
from mixer.data import normalise
from mixer.widgets import FilterExplorer

MEAN, STD = [0.49, 0.48, 0.45], [0.25, 0.24, 0.26]
MAPS = """async ([stride]) => {
  const { state, module } = JSON.parse(document.querySelector("script[type='application/json']").textContent);
  const url = URL.createObjectURL(new Blob([module + "export { readState, computing };"], { type: "text/javascript" }));
  const { readState, computing } = await import(url);
  const view = ({ base64 }) => new DataView(Uint8Array.from(atob(base64), (byte) => byte.charCodeAt(0)).buffer);
  const get = (name) => (state[name].base64 === undefined ? state[name] : view(state[name]));
  const source = readState({ get });
  const { H, W, P, names } = source;
  const sizes = { stride, rows: (H - P) / stride + 1, columns: (W - P) / stride + 1 };
  const places = Array.from({ length: sizes.rows * sizes.columns }, (_, i) => i);
  return names.map((_, filter) => {
    const compute = computing(source);
    return places.map((i) => {
      const [y, x] = [Math.floor(i / sizes.columns) * stride, (i % sizes.columns) * stride];
      const { numbers, sum, bias } = compute({ filter, y, x, ...sizes });
      return [numbers[i], sum + bias];
    });
  });
}"""


def explorer(n_image_channel=3, patch_size=4, n_filters=5, size=(12, 20)):
    """A figure with random pixels and weights, and its layer."""
    image = torch.randint(0, 256, (n_image_channel, *size), dtype=torch.uint8)
    layer = PerPatchMLP(n_image_channel * patch_size**2, n_filters)
    weight, bias = layer.linear.weight, layer.linear.bias
    return FilterExplorer(image, weight, bias, MEAN[:n_image_channel], STD[:n_image_channel]), image, layer


@pytest.fixture
def figure():
    return explorer()[0]


@pytest.fixture
def page(tab, tmp_path, figure):
    return tab.open(write_page(tmp_path / "page.html", figure))


def facts(page):
    return page.locator("p[role=status]").inner_text()


def labels(page):
    return page.locator(".mx canvas[role=img]").evaluate_all("all => all.map((c) => c.getAttribute('aria-label'))")


@pytest.mark.parametrize("n_image_channel, patch_size", [(3, 4), (1, 2), (1, 1)])
def test_the_numbers_are_those_of_the_per_patch_layer_and_of_the_convolution(
    tab, tmp_path, n_image_channel, patch_size
):
    """Every number of the map and every sum of products, for each filter, with both strides."""
    figure, image, layer = explorer(n_image_channel, patch_size)
    page = tab.open(write_page(tmp_path / "page.html", figure))
    x = normalise(image[None], MEAN[:n_image_channel], STD[:n_image_channel])
    kernel = layer.linear.weight.view(-1, n_image_channel, patch_size, patch_size)
    for stride in (1, patch_size):
        maps = F.conv2d(x, kernel, layer.linear.bias, stride=stride)[0].flatten(1)  # [n_filters, places]
        got = torch.tensor(page.evaluate(MAPS, [stride]))  # [n_filters, places, 2]
        assert (got - maps[..., None]).abs().max() < 1e-5
    tokens = layer(ImageToPatches(patch_size)(x))[0]  # [n_tokens, n_filters]
    assert (got[..., 0].T - tokens).abs().max() < 1e-5


def test_python_gives_the_number_that_the_page_shows(page, figure):
    for chosen in ({}, {"filter": 3, "row": 8, "column": 16}, {"stride": 1, "row": 5, "column": 3}):
        for name, value in chosen.items():
            setattr(figure, name, value)
        for name in chosen.keys() & {"filter"}:
            page.get_by_role("radio").nth(getattr(figure, name)).check()
        if figure.stride == 1:
            page.get_by_label("Every pixel").check()
        settle(page)  # the sliders reach as far as the map that is shown
        page.get_by_role("slider", name="Row").fill(str(figure.row // figure.stride))
        page.get_by_role("slider", name="Column").fill(str(figure.column // figure.stride))
        settle(page)
        shown = facts(page).split("this is ")[1].split(". ")[0].rstrip(".").replace("−", "-")
        assert abs(float(shown) - figure.number) < 6e-4, facts(page)


def test_a_switch_to_every_pixel_keeps_the_place_and_back(page):
    assert "Token 7, the patch in row 1, column 2 of the grid: 48 products" in facts(page)
    before = facts(page).split("48 products")[1]
    assert "Map: 3 × 5, one number a patch" in page.locator(".mx").inner_text()
    page.get_by_label("Every pixel").check()
    settle(page)
    assert "Pixel row 4, column 8: 48 products" + before + " It is also the number of token 7." == facts(page)
    assert "Map: 9 × 17, one number a pixel" in page.locator(".mx").inner_text()
    page.get_by_role("slider", name="Row").press("ArrowRight")
    settle(page)
    assert facts(page).startswith("Pixel row 5, column 8: ") and facts(page).endswith("It is the number of no token.")
    page.get_by_label("Every pixel").uncheck()
    settle(page)
    assert "Token 7, the patch in row 1, column 2" in facts(page)
    state = "['stride', 'row', 'column'].map((name) => document.querySelector('.mixer-figure').model.get(name))"
    assert page.evaluate(state) == [4, 4, 8]  # what a kernel would be told


def test_the_arrow_keys_move_the_frame_by_the_stride_and_not_beyond_the_image(page):
    pad = page.get_by_role("group", name="Image")
    pad.focus()
    for key, words in [
        ("ArrowRight", "row 1, column 3"),
        ("ArrowUp", "row 0, column 3"),
        ("ArrowUp", "row 0, column 3"),
    ]:
        page.keyboard.press(key)
        settle(page)
        assert words in facts(page)
    page.get_by_label("Every pixel").check()
    settle(page)
    pad.focus()
    page.keyboard.press("ArrowDown")
    settle(page)
    assert "Pixel row 1, column 12" in facts(page)


def test_the_frame_is_dragged_over_the_image_and_chosen_on_the_map(page):
    image, channel_map = page.locator(".mx-sheet").all()
    box = image.bounding_box()
    unit = box["width"] / 20  # of a pixel
    page.mouse.move(box["x"] + 6 * unit, box["y"] + 6 * unit)
    page.mouse.down()
    settle(page)
    assert "row 1, column 1" in facts(page)
    page.mouse.move(box["x"] + 18 * unit, box["y"] + 10 * unit)
    page.mouse.move(box["x"] + 19 * unit, box["y"] + 99 * unit)  # below the image
    page.mouse.up()
    page.mouse.move(box["x"] + unit, box["y"] + unit)
    settle(page)
    assert "row 2, column 4" in facts(page)
    box = channel_map.bounding_box()
    page.mouse.click(box["x"] + 0.5 * box["width"], box["y"] + 0.1 * box["height"])
    settle(page)
    assert "row 0, column 2" in facts(page)


def test_a_finger_moves_the_frame_and_every_target_is_large_enough(browser, tmp_path, figure):
    context = browser.new_context(viewport={"width": 390, "height": 800}, has_touch=True)
    page = context.new_page()
    page.goto(write_page(tmp_path / "page.html", figure).as_uri())
    page.locator(".mx-sheet").first.tap(position={"x": 5, "y": 5})
    settle(page)
    assert "row 0, column 0" in facts(page)
    page.get_by_role("radio").nth(2).tap()
    assert page.get_by_role("radio").nth(2).is_checked()
    sizes = "all => all.map((e) => e.closest('label, .mx-control:has([type=checkbox])') ?? e)"
    boxes = page.locator(".mx :is(input, [tabindex], .mx-sheet > div[style*='44px'])")
    small = boxes.evaluate_all(
        f"all => ({sizes})(all).filter((e) => Math.min(e.offsetWidth, e.offsetHeight) < 44).length"
    )
    assert boxes.count() == 5 + 3 + 1 + 2 and small == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    context.close()


def test_the_choice_of_a_filter_changes_the_weights_that_are_read_out(page, figure):
    weights = [label for label in labels(page) if label.startswith("red, weights of the filter: ")]
    page.get_by_role("radio", name="filter 4").check()
    settle(page)
    changed = [label for label in labels(page) if label.startswith("red, weights of the filter: ")]
    expected = torch.frombuffer(bytearray(figure.weight), dtype=torch.float32).view(5, 48)[4, :16]
    shown = [float(word) for word in changed[0].split(": ")[1].replace("−", "-").split(", ")]
    assert changed != weights and (torch.tensor(shown) - expected).abs().max() < 6e-3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(image=torch.zeros(3, 8, 8)), "the image is torch.float32"),
        (dict(image=torch.zeros(2, 8, 8, dtype=torch.uint8)), "with 1 or 3 channels"),
        (dict(image=torch.zeros(3, 200, 200, dtype=torch.uint8)), "resize it to 27,648"),
        (dict(weight=torch.zeros(2, 47)), r"the weight is \[2, 47\]; it must be \[n_filters, 3·P²\]"),
        (dict(weight=torch.zeros(2, 27)), "image 8×8 is not divisible into 3×3 patches"),
        (dict(weight=torch.zeros(33, 48), bias=torch.zeros(33)), "there are 33 filters; choose 32 at the most"),
        (dict(bias=torch.zeros(3)), "bias has 3 entries; it must have 2"),
        (dict(names=["one"]), "names has 1 entries; it must have 2"),
        (dict(mean=[0.5]), "mean has 1 entries; it must have 3"),
        (dict(std=[1, 0, 1]), "it must have 3 entries above 0"),
        (dict(bias=torch.tensor([0, torch.nan])), "not a finite number"),
    ],
)
def test_what_cannot_be_shown_is_refused(changes, words):
    right = dict(image=torch.zeros(3, 8, 8, dtype=torch.uint8), weight=torch.zeros(2, 48), bias=torch.zeros(2))
    with pytest.raises(ValueError, match=words):
        FilterExplorer(**right | dict(mean=MEAN, std=STD) | changes)


def test_traits_accept_only_what_there_is(figure):
    figure.stride, figure.row, figure.column = 1, 7, 16
    figure.stride = 4
    assert (figure.row, figure.column) == (4, 16)
    for name, value, words in [
        ("filter", 5, "filter is 5; choose from 0 to 4"),
        ("stride", 2, "stride is 2; choose from 1, 4"),
        ("row", 5, "row is 5; choose from 0 to 8, in steps of 4"),
        ("column", 20, "column is 20; choose from 0 to 16, in steps of 4"),
    ]:
        with pytest.raises(ValueError, match=words):
            setattr(figure, name, value)
