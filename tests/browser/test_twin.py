"""The convolution twin: its numbers against torch both ways, and in Chromium every control, seen by what changed."""

import numpy as np
import pytest
import torch
from playwright.sync_api import expect
from torch.nn import functional as F

from _extensions.chromium import Tab, settle, write_page
from mixer import MLPMixer, load_checkpoint, save_checkpoint, shipped_weights, to_convolution
from mixer.data import normalise
from mixer.widgets.twin import ConvolutionTwin

GREY = dict(data_set="noise", mean=[0.4], std=[0.3])
HOUR = 3_600_000  # in milliseconds, later than any page has opened
CHOICES = [(0, 0, 0), (63, 47, 2), (17, 5, 1), (40, 31, 2)]  # unit, channel, example


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (3, 1, 8, 8), generator=generator, dtype=torch.uint8)


@pytest.fixture(scope="module")
def digits():
    return shipped_weights("digits-1")


@pytest.fixture
def page(tab, tmp_path, digits, images):
    return tab.open(write_page(tmp_path / "page.html", ConvolutionTwin(digits, images)))


@pytest.fixture
def oblong(tmp_path):
    """A checkpoint whose grid of patches is not square, with the approximated GELU and weights large enough to tell."""
    torch.manual_seed(0)
    sizes = dict(n_layers=2, n_channel=3, n_hidden=5, n_output=2, image_size=(4, 10), patch_size=2, n_image_channel=1)
    model = MLPMixer(**sizes, gelu="tanh", norm="channels")
    model.layers[1].token_mixing.fc1.weight.data *= 5
    save_checkpoint(tmp_path / "oblong.safetensors", model, GREY)
    return tmp_path / "oblong.safetensors"


def put(page, **traits):
    """Set traits of the model that stands in for the kernel, and wait until they are drawn."""
    page.evaluate(
        """traits => {
          const { model } = document.querySelector(".mixer-figure");
          for (const [name, value] of Object.entries(traits)) model.set(name, value);
        }""",
        traits,
    )
    settle(page)


def get(page, name):
    return page.evaluate("name => document.querySelector('.mixer-figure').model.get(name)", name)


def line(page, label):
    """The two numbers of a line of the table, those of token mixing and of the convolution, as they are shown."""
    cells = page.locator("tr", has=page.get_by_role("rowheader", name=label)).locator("td").all_inner_texts()
    return [text.split()[-1] for text in cells]


def numbers(page, label):
    return torch.tensor([float(text.replace("−", "-")) for text in line(page, label)], dtype=torch.float64)


def colours(page, label):
    """The colours of the cells of the picture whose words begin with the label."""
    picture = page.locator(f'.mx-cells[aria-label^="{label}"]')
    return picture.evaluate("el => [...el.children].map((cell) => cell.style.background)")


def block_input(path, images, layer):
    """What reaches a layer, by forward_intermediates: the model and its table [n, n_tokens, n_channel]."""
    model, about = load_checkpoint(path)
    _, results = model.forward_intermediates(normalise(images, about["mean"], about["std"]))
    return model, results["tokens" if layer == 0 else f"layers.{layer - 1}.channel_mixing"]


def hidden_both_ways(path, images, layer):
    """The activations [n, n_channel, n_hidden] by TokenMixingMLP and by its convolutional twin."""
    model, x = block_input(path, images, layer)
    maps = x.transpose(1, 2).unflatten(2, model.grid)  # [n, n_channel, rows, columns]
    conv = to_convolution(model).layers[layer].token_mixing
    singles = conv.norm(maps).flatten(0, 1).unsqueeze(1)  # [n·n_channel, 1, rows, columns]
    by_conv = conv.gelu(conv.fc1(singles)).view(*maps.shape[:2], -1)
    return model.layers[layer].token_mixing.hidden(x), by_conv


@pytest.mark.parametrize("layer", [0, 2])
def test_the_page_shows_the_activation_of_torch_in_both_views(tab, tmp_path, digits, images, layer):
    by_row, by_kernel = hidden_both_ways(digits, images, layer)
    twin = ConvolutionTwin(digits, images, layer)
    page = tab.open(write_page(tmp_path / "page.html", twin))
    for unit, channel, example in CHOICES:
        put(page, unit=unit, channel=channel, example=example, n_added=16)
        twin.unit, twin.channel, twin.example = unit, channel, example
        row, kernel = numbers(page, "GELU").tolist()
        assert row == pytest.approx(by_row[example, channel, unit].item(), abs=1e-5)
        assert kernel == pytest.approx(by_kernel[example, channel, unit].item(), abs=1e-5)
        assert twin.activation == pytest.approx(by_row[example, channel, unit].item(), abs=1e-6)


def test_an_oblong_grid_and_the_other_gelu(tab, tmp_path, oblong):
    images = torch.arange(80, dtype=torch.uint8).reshape(2, 1, 4, 10) * 3
    by_row, by_kernel = hidden_both_ways(oblong, images, 1)
    page = tab.open(write_page(tmp_path / "page.html", ConvolutionTwin(oblong, images, 1)))
    for unit in range(5):
        put(page, unit=unit, channel=2, example=1, n_added=10)
        expected = torch.stack([by_row[1, 2, unit], by_kernel[1, 2, unit]]).double()
        assert torch.allclose(numbers(page, "GELU"), expected, rtol=0, atol=1e-5)


def test_partial_sums_are_those_of_torch_at_every_step(page, digits, images):
    model, x = block_input(digits, images, 0)
    block = model.layers[0].token_mixing
    products = block.norm(x)[1, :, 7] * block.fc1.weight[30]
    put(page, unit=30, channel=7, example=1)
    for n_added in range(17):
        put(page, n_added=n_added)
        expected = products[:n_added].double().sum()
        assert torch.allclose(numbers(page, f"sum of {n_added} of 16"), expected, rtol=0, atol=1e-5)
        assert "are equal" in page.locator("p[role=status]").inner_text()
        if n_added < 16:
            assert line(page, "GELU") == ["–", "–"]
        if n_added:
            assert torch.allclose(numbers(page, "product"), products[n_added - 1].double(), rtol=0, atol=1e-5)


def test_the_convolution_is_that_of_torch_wherever_the_kernel_lies(page):
    """The page's `correlate` also slides: it is conv2d, not a sum that happens to agree on one place."""
    generator = torch.Generator().manual_seed(0)
    image, kernel = (torch.randn(1, 1, *size, generator=generator) for size in [(4, 6), (3, 2)])
    got = page.evaluate(
        """async ([image, kernel]) => {
          const { module } = JSON.parse(document.querySelector("script[type='application/json']").textContent);
          const url = URL.createObjectURL(new Blob([module + "export { correlate };"], { type: "text/javascript" }));
          return (await import(url)).correlate(image, kernel);
        }""",
        [image[0, 0].tolist(), kernel[0, 0].tolist()],
    )
    assert torch.allclose(torch.tensor(got), torch.nn.functional.conv2d(image, kernel)[0, 0], rtol=0, atol=1e-5)


def test_strip_and_map_show_the_same_cells_up_to_the_last_token(page):
    put(page, n_added=6)
    assert colours(page, "Column 0") == colours(page, "Channel 0")
    assert colours(page, "Row 0") == colours(page, "The weights")
    filled = [bool(fill) for fill in colours(page, "The first 6 of 16 products of the two")]
    assert filled == [True] * 6 + [False] * 10
    lit = page.locator(".mx-cells").evaluate_all(
        "all => all.map((el) => [...el.children].findIndex((cell) => cell.classList.contains('mx-lit')))"
    )
    maps = [5, 5, 5, 1]  # the last: a row of the patch grid
    rivals = [-1, 5, 5, -1, -1]  # the small kernel, its answers, and what token mixing writes
    assert lit == [5] * 4 + maps + rivals


@pytest.mark.parametrize(
    ("label", "trait"),
    [
        ("Hidden unit", "unit"),
        ("Channel", "channel"),
        ("Image", "example"),
        ("Products", "n_added"),
        ("Shift down", "down"),
        ("Shift right", "right"),
    ],
)
def test_sliders_work_by_keyboard(page, label, trait):
    before = page.locator("tbody").inner_text(), colours(page, "Column"), colours(page, "Row")
    slider = page.get_by_role("slider", name=label)
    slider.press("Home")
    slider.press("ArrowRight")
    slider.press("ArrowRight")
    settle(page)
    assert get(page, trait) == 2
    assert (page.locator("tbody").inner_text(), colours(page, "Column"), colours(page, "Row")) != before


def test_play_adds_up_everything_and_can_pause(tab, tmp_path, digits, images):
    """8 s for 16 products, on a clock that stands still unless it is told to go on."""
    tab.page.clock.install(time=0)
    page = tab.open(write_page(tmp_path / "page.html", ConvolutionTwin(digits, images)))
    page.clock.pause_at(HOUR)
    button = page.get_by_role("button")

    def play(seconds, n_added, name):
        page.clock.run_for(1000 * seconds)
        expect(button).to_have_text(name)
        assert get(page, "n_added") == n_added

    page.evaluate("document.querySelector('.mixer-figure').model.set('n_added', 16)")
    button.press("Enter")
    play(0.4, 0, "Pause")
    play(0.7, 2, "Pause")
    button.press("Enter")
    play(2, 2, "Play")
    button.press("Enter")
    play(6.9, 15, "Pause")
    play(0.2, 16, "Play")
    play(2, 16, "Play")
    assert line(page, "sum of 16 of 16")


def test_a_slider_that_is_moved_pauses_the_film(tab, tmp_path, digits, images):
    tab.page.clock.install(time=0)
    page = tab.open(write_page(tmp_path / "page.html", ConvolutionTwin(digits, images)))
    page.clock.pause_at(HOUR)
    page.get_by_role("button").press("Enter")
    page.get_by_role("slider", name="Products").press("Home")
    page.clock.run_for(3000)
    expect(page.get_by_role("button")).to_have_text("Play")
    assert get(page, "n_added") == 0


def rolled(colours, down, right):
    """Colours of the cells of a 4×4 map, moved on a ring."""
    return np.roll(np.array(colours).reshape(4, 4), (down, right), (0, 1)).flatten().tolist()


@pytest.mark.parametrize("down, right", [(0, 1), (3, 2)])
def test_the_answers_of_the_small_kernel_follow_a_shift_and_those_of_token_mixing_do_not(page, down, right):
    put(page, n_added=16)
    maps = [
        colours(page, label)
        for label in ("Channel", "The answers of the small kernel before", "What token mixing writes before")
    ]
    put(page, down=down, right=right)
    now = [colours(page, label) for label in ("Channel", "The answers of the small kernel after")]
    assert now == [rolled(seen, down, right) for seen in maps[:2]]
    after = colours(page, "What token mixing writes after")
    assert after != rolled(maps[2], down, right)
    verdicts = page.get_by_text("the shift: moved along").all_inner_texts()
    assert [text.split(" the shift")[0] for text in verdicts] == ["It follows", "It does not follow"]


def test_what_follows_a_shift_is_measured_as_torch_does(page, digits, images):
    """The differences that the page names, by conv2d on a ring and by the block's own layers."""
    put(page, unit=30, channel=7, example=1, right=1)
    model, x = block_input(digits, images, 0)
    block = model.layers[0].token_mixing
    column = block.norm(x)[1, :, 7].view(4, 4)
    shifted = torch.stack([column, column.roll(1, dims=1)]).flatten(1)
    before, after = block.fc2(block.gelu(block.fc1(shifted))).view(2, 4, 4)
    expected = (before.roll(1, dims=1) - after).abs().max().item()
    said = [float(text.split()[-1][:-1]) for text in page.get_by_text("the shift: moved along").all_inner_texts()]
    assert said == pytest.approx([0, expected], abs=2e-5)
    kernels = block.fc1.weight[30].view(4, 4).unfold(0, 3, 1).unfold(1, 3, 1).flatten(0, 1)  # [4, 3, 3]
    kernel = kernels[kernels.flatten(1).norm(dim=1).argmax()]
    ring = F.pad(column[None, None], (1, 1, 1, 1), mode="circular")
    answers = F.conv2d(ring, kernel[None, None])[0, 0].flatten().tolist()
    got = page.evaluate(
        """async () => {
          const { module } = JSON.parse(document.querySelector("script[type='application/json']").textContent);
          const url = URL.createObjectURL(new Blob([module + "export { rivalsOf };"], { type: "text/javascript" }));
          return Function("url", "return import(url)")(url).then((m) => (window.rivalsOf = m.rivalsOf, true));
        }"""
    )
    given = [column.flatten().tolist(), block.fc1.weight[30].tolist()]
    code = """([column, weights]) => {
      const none = { grid: [4, 4], W1: [], b1: [], W2: [], b2: [0] };
      return rivalsOf(none, column, weights, [0, 1], (x) => x).rivals[0].before;
    }"""
    assert got and page.evaluate(code, given) == pytest.approx(answers, abs=1e-5)


def test_a_click_on_a_cell_adds_up_to_its_token(page):
    page.locator(".mx-map").first.locator("div").nth(10).click()
    settle(page)
    assert line(page, "sum of 11 of 16")
    page.locator(".mx-sums div").nth(0).click()
    settle(page)
    assert line(page, "sum of 4 of 16")


def test_the_theme_changes_the_colours(page):
    before = colours(page, "Column")
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    settle(page)
    assert all(dark != light for dark, light in zip(colours(page, "Column"), before, strict=True))


def test_reduced_motion_adds_one_product_at_a_press(browser, tmp_path, digits, images):
    tab = Tab(browser, reduced_motion="reduce")
    page = tab.open(write_page(tmp_path / "page.html", ConvolutionTwin(digits, images)))
    put(page, n_added=16)
    page.get_by_role("button").press("Enter")
    assert get(page, "n_added") == 1
    assert page.get_by_role("button").inner_text() == "Play"
    page.close()
    assert tab.problems == []


def test_a_narrow_page_does_not_scroll_sideways(browser, tmp_path, images):
    tab = Tab(browser, viewport={"width": 390, "height": 800})
    images = images.repeat_interleave(4, 2).repeat_interleave(4, 3)[:, :, 2:-2, 2:-2]  # [3, 1, 28, 28]
    page = tab.open(write_page(tmp_path / "page.html", ConvolutionTwin(shipped_weights("mnist"), images, 1)))
    page.wait_for_selector(".mx-twin")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    page.close()


@pytest.mark.parametrize(
    ("name", "numbers", "words"),
    [
        ("W1", bytes(4 * 63 * 16), "numbers are damaged or incomplete"),
        ("normed", bytes(4 * 3 * 48 * 16 - 4) + b"\x00\x00\xc0\x7f", "not finite"),
        ("W2", bytes(4 * 64 * 15), "numbers are damaged or incomplete"),
        ("images", b"", "images are damaged or incomplete"),
        ("engine", b"", "its engine is damaged or incomplete"),
    ],
)
def test_a_damaged_state_is_named(tab, tmp_path, digits, images, name, numbers, words):
    twin = ConvolutionTwin(digits, images)
    setattr(twin, name, numbers)
    page = tab.open(write_page(tmp_path / "page.html", twin))
    assert words in page.get_by_role("alert").inner_text()


def test_a_choice_that_the_page_does_not_have_is_named(page):
    put(page, unit=64)
    assert "there is no unit 64" in page.get_by_role("alert").inner_text()


def test_traits_accept_only_what_there_is(digits, images):
    twin = ConvolutionTwin(digits, images)
    for name, last in [("unit", 63), ("channel", 47), ("example", 2), ("n_added", 16), ("down", 3), ("right", 3)]:
        setattr(twin, name, last)
        with pytest.raises(ValueError, match=f"{name} is {last + 1}; choose from 0 to {last}"):
            setattr(twin, name, last + 1)


def test_what_does_not_fit_the_model_is_refused(digits, images):
    with pytest.raises(ValueError, match="layer is 3; choose from 0 to 2"):
        ConvolutionTwin(digits, images, 3)
    for wrong in (images.float(), images[0], images[:0], images[:, :, :4]):
        with pytest.raises(ValueError, match=r"must be uint8 \[n, 1, 8, 8\]"):
            ConvolutionTwin(digits, wrong)
    with pytest.raises(ValueError, match="not shipped"):
        ConvolutionTwin(shipped_weights("digits-9"), images)


@pytest.mark.parametrize("about", [{}, {**GREY, "shuffle": "patches"}])
def test_a_checkpoint_that_cannot_be_shown_is_refused(tmp_path, digits, images, about):
    model, _ = load_checkpoint(digits)
    save_checkpoint(tmp_path / "odd.safetensors", model, about)
    with pytest.raises(ValueError, match="mean and std"):
        ConvolutionTwin(tmp_path / "odd.safetensors", images)


def test_the_still_picture_says_what_it_shows(digits, images):
    pixels, words = ConvolutionTwin(digits, images).still()
    assert pixels.shape == (4, 14, 3)
    assert "three maps of 4 by 4" in words.lower()
