"""The explorer of costs: its counts held against models of PyTorch, and in Chromium every control."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from _extensions.chromium import settle, write_page
from mixer import MLPMixer
from mixer.widgets import CostExplorer
from mixer.widgets.cost import costs

SMALL = dict(n_layers=2, n_channel=20, n_hidden=64, n_output=10)
SETTINGS = {
    "digits": dict(n_layers=4, n_channel=32, n_hidden=64, n_output=10, image_size=8, patch_size=2, n_image_channel=1),
    "CIFAR-10": dict(**SMALL, image_size=32, patch_size=4, n_image_channel=3),
    "odd": dict(**SMALL, image_size=30, patch_size=5, n_image_channel=3, n_hidden_token=7, norm="channels"),
}
COUNTED = """async (all) => {
  const { module } = JSON.parse(document.querySelector("script[type='application/json']").textContent);
  const url = URL.createObjectURL(new Blob([module + "export { costsOf };"], { type: "text/javascript" }));
  const { costsOf } = await import(url);
  return all.map(costsOf);
}"""


@pytest.fixture
def figure():
    return CostExplorer(SETTINGS)


@pytest.fixture
def page(tab, tmp_path, figure):
    return tab.open(write_page(tmp_path / "page.html", figure))


def facts(page):
    return page.locator("p[role=status]").inner_text()


def table(page):
    """The numbers of the table by the names of its lines."""
    lines = page.locator(".mx tbody tr").evaluate_all("all => all.map((tr) => [...tr.cells].map((c) => c.textContent))")
    return {name: [int(text.replace(",", "")) if text else None for text in numbers] for name, *numbers in lines}


def multiply_adds(function, x):
    with FlopCounterMode(display=False) as counter:
        function(x)
    return counter.get_total_flops() // 2


def attention(x):  # as in chapter 5
    return torch.softmax(x @ x.mT, dim=2) @ x  # [B, n_tokens, n_channel]


def counted(sizes):
    """Parameters and multiply-adds of each block of a model, and the multiply-adds of attention in its layers."""
    with torch.device("meta"):
        model = MLPMixer(**sizes)
        patches = model.patches(torch.empty(1, *model.image_shape))
        x = torch.empty(1, model.n_tokens, sizes["n_channel"])
        parameters = dict.fromkeys(["per_patch", "token_mixing", "channel_mixing", "norm", "output"], 0)
        for name, values in model.named_parameters():
            parameters[next(kind for kind in ("norm", *parameters) if kind in name)] += values.numel()
        adds = {"per_patch": multiply_adds(model.per_patch, patches), "norm": 0}
        for name in ("token_mixing", "channel_mixing"):
            adds[name] = sum(multiply_adds(getattr(layer, name), x) for layer in model.layers)
        adds["output"] = multiply_adds(model.output, x)
        assert sum(adds.values()) == multiply_adds(model, torch.empty(1, *model.image_shape))
        C, n = sizes["n_channel"], len(model.layers)
        core, linear = n * multiply_adds(attention, x), n * multiply_adds(nn.Linear(C, 4 * C), x)
    return {
        "nTokens": model.n_tokens,
        "parameters": parameters,
        "multiplyAdds": adds,
        "attention": {"core": core, "linear": linear},
    }


def test_every_count_is_that_of_a_model(page):
    """Of the settings here, of the paper's Mixers, and of others; of each block, and exactly."""
    figures = [CostExplorer(SETTINGS), CostExplorer()]
    sizes = [own for figure in figures for _, own in figure.settings]
    sizes += [own | {"norm": norm, "patch_size": 1} for own in sizes[:3] for norm in ("channels", "tokens_channels")]
    for own, got in zip(sizes, page.evaluate(COUNTED, sizes), strict=True):
        assert got == counted(own), own
        assert costs(own) == (got["parameters"], got["multiplyAdds"])  # by which the still picture is drawn
        figures[0].sizes = own
        assert figures[0].n_parameters == sum(got["parameters"].values())
        assert figures[0].n_multiply_adds == sum(got["multiplyAdds"].values())


def test_the_largest_sizes_are_counted_exactly(page):
    largest = dict(n_layers=64, n_channel=4096, n_hidden=16384, n_output=65536, image_size=1024, patch_size=4)
    own = CostExplorer({"largest": dict(**largest, n_image_channel=64)}).sizes
    [got] = page.evaluate(COUNTED, [own])
    assert got["attention"]["core"] == 64 * 2 * 65536**2 * 4096
    assert sum(got["multiplyAdds"].values()) == CostExplorer({"largest": own}).n_multiply_adds < 2**53


@pytest.mark.parametrize("name", SETTINGS)
def test_the_table_shows_the_counts_and_their_sums(page, name):
    page.get_by_label("Start from").select_option(name)
    settle(page)
    right, shown = counted(SETTINGS[name]), table(page)
    for block, n in right["parameters"].items():
        assert shown[block] == [n, right["multiplyAdds"][block]]
    assert shown["sum"] == [MLPMixer(**SETTINGS[name]).n_parameters, sum(right["multiplyAdds"].values())]
    assert shown["attention: core"] == [None, right["attention"]["core"]]
    assert shown["attention: linear layers"] == [None, right["attention"]["linear"]]
    assert f"{shown['sum'][0]:,} parameters, as many as for {name}; " in facts(page)


def test_the_bars_are_as_long_as_the_counts(page):
    """Of the sizes now and of those at first, on one scale; the widths of the parts, in their order."""
    page.get_by_role("slider", name="Layers").press("ArrowRight")
    settle(page)
    widths = "all => all.map((svg) => [...svg.querySelectorAll('rect')].map((r) => Number(r.getAttribute('width'))))"
    now, before, *_ = page.locator(".mx svg").evaluate_all(widths)
    first, larger = (counted(SETTINGS["digits"] | {"n_layers": n})["parameters"] for n in (4, 5))
    for got, right in ((now, larger), (before, first)):
        assert got == pytest.approx([n / sum(larger.values()) for n in right.values()])


def test_halved_patches_cost_four_times_as_much(page):
    page.get_by_label("Start from").select_option("CIFAR-10")
    settle(page)
    before = table(page)
    page.get_by_label("Patch size").press("ArrowLeft")
    settle(page)
    after = table(page)
    assert "256 tokens" in facts(page)
    assert after["per_patch"][1] == before["per_patch"][1]
    for block in ("token_mixing", "channel_mixing"):
        assert after[block][1] == 4 * before[block][1]
    assert after["attention: core"][1] == 16 * before["attention: core"][1]
    page.get_by_role("button", name="Back to CIFAR-10").click()
    settle(page)
    assert table(page) == before


def test_another_image_takes_the_patch_size_that_divides_it_and_is_nearest_to_the_chosen_one(page):
    page.get_by_label("Start from").select_option("odd")
    image, patch = page.get_by_label("Image side"), page.get_by_label("Patch size")
    settle(page)
    for key, expected in [
        ("ArrowRight", ("32", "4")),
        ("ArrowLeft", ("30", "5")),
        ("ArrowLeft", ("16", "4")),
        ("ArrowLeft", ("8", "4")),
    ]:
        image.press(key)
        settle(page)
        assert (image.get_attribute("aria-valuetext"), patch.get_attribute("aria-valuetext")) == expected
    patch.press("ArrowRight")
    settle(page)
    image.press("ArrowRight")
    settle(page)
    assert patch.get_attribute("aria-valuetext") == "8"


def test_the_kind_of_layer_norm_changes_its_line_alone(page):
    before = table(page)
    page.get_by_label("LayerNorm").select_option("channels")
    settle(page)
    after = table(page)
    assert after["norm"] == [9 * 2 * 32, 0] and before["norm"] == [9 * 2 * 16 * 32, 0]
    assert {name for name in after if after[name] != before[name]} == {"norm", "sum"}


def test_every_target_is_large_enough_and_it_fits_a_narrow_page(page):
    page.set_viewport_size({"width": 390, "height": 800})
    heights = page.locator(".mx :is(input, select, button)").evaluate_all("all => all.map((e) => e.offsetHeight)")
    assert len(heights) == 9 and min(heights) >= 44
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(patch_size=3), "image 8×8 is not divisible into 3×3 patches"),
        (dict(n_layers=65), "n_layers is 65; the figure counts up to 64"),
        (dict(image_size=1024, patch_size=2), "n_tokens is 262,144; the figure counts up to 65,536"),
        (dict(image_size=(8, 8)), r"image_size is \(8, 8\); give one number, the side of a square"),
        (dict(token_mixing="shift"), "a figure of the costs takes a Mixer with MLPs alone"),
        (dict(n_channel=0), "n_channel is 0"),
    ],
)
def test_sizes_that_cannot_be_counted_are_refused(figure, changes, words):
    with pytest.raises(ValueError, match=words):
        CostExplorer({"wrong": SETTINGS["digits"] | changes})
    with pytest.raises(ValueError, match=words):
        figure.sizes = figure.sizes | changes
    assert figure.sizes["n_layers"] == 4


def test_settings_are_named_and_few():
    with pytest.raises(ValueError, match="there are 0 settings; give 1 to 32"):
        CostExplorer({})
    with pytest.raises(ValueError, match="setting is 'MNIST'; choose from digits, CIFAR-10, odd"):
        CostExplorer(SETTINGS).setting = "MNIST"
