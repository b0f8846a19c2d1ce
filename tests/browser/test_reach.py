"""The explorer of reach: held against Jacobians of the package's blocks, and in Chromium every control."""

from itertools import product

import pytest
import torch
from torch import nn
from torch.autograd.functional import jacobian

from _extensions.chromium import settle, write_page
from mixer import ChannelMixingMLP, TokenMixingMLP
from mixer.widgets import ReachExplorer

KINDS = {"token": TokenMixingMLP, "channel": ChannelMixingMLP}
RUNS = [run for length in (0, 1, 2, 3) for run in product(KINDS, repeat=length)]
REACHED = """async ([nTokens, nChannel, runs, norm]) => {
  const { module } = JSON.parse(document.querySelector("script[type='application/json']").textContent);
  const url = URL.createObjectURL(new Blob([module + "export { reachOf };"], { type: "text/javascript" }));
  const { reachOf } = await import(url);
  const starts = Array.from({ length: nTokens * nChannel }, (_, i) => i);
  const from = (i, run) => reachOf(nTokens, nChannel, i, run, norm).first.map((by) => by >= 0);
  return runs.map((run) => starts.map((i) => from(i, run)));
}"""


@pytest.fixture
def page(tab, tmp_path):
    return tab.open(write_page(tmp_path / "page.html", ReachExplorer()))


def press(page, *names):
    for name in names:
        page.get_by_role("button", name=name).click()
    settle(page)


def facts(page):
    return page.locator("p[role=status]").inner_text()


def numbers(page, drawing=0):
    """What the cells of a drawing say, in the order of the table."""
    read = "svg => [...svg.querySelectorAll('[data-cell]')].map((g) => [Number(g.dataset.cell), g.textContent])"
    return [number for _, number in sorted(page.locator(".mx svg").nth(drawing).evaluate(read))]


@pytest.mark.parametrize("norm", ["none", "channels", "tokens_channels"])
@pytest.mark.parametrize("sizes", [(6, 4), (3, 5)])
def test_the_cells_are_those_where_the_jacobian_is_not_zero(page, norm, sizes):
    """For each cell, and for up to three blocks in any order; random weights, in float64."""
    reached = page.evaluate(REACHED, [*sizes, RUNS, norm])
    for run, cells in zip(RUNS, reached, strict=True):
        options = {} if norm == "none" else {"norm": norm}
        blocks = nn.Sequential(*(KINDS[kind](*sizes, 7, **options) for kind in run)).double()
        for block in blocks if norm == "none" else ():
            block.norm = nn.Identity()
        x = torch.randn(1, *sizes, dtype=torch.float64)
        slopes = jacobian(blocks, x, vectorize=True).reshape(2 * [sizes[0] * sizes[1]])  # [out, in]
        assert torch.equal(torch.tensor(cells), slopes.T != 0), run


def test_the_blocks_spread_along_column_then_rows_and_nothing_is_left(page):
    assert "1 of 128 cells can depend on channel 3 of token 5 (row 1, column 1" in facts(page)
    press(page, "Token mixing")
    assert "16 of 128" in facts(page) and "the column of channel 3" in facts(page)
    press(page, "Token mixing")
    assert "16 of 128" in facts(page)
    press(page, "Channel mixing")
    assert "1 token mixing → 2 token mixing → 3 channel mixing: 128 of 128" in facts(page)
    expected = ["0" if (t, c) == (5, 3) else "1" if c == 3 else "3" for t in range(16) for c in range(8)]
    assert numbers(page) == numbers(page, 1) == expected
    press(page, "Start again", "Channel mixing")
    assert "8 of 128" in facts(page) and "the row of token 5" in facts(page)


def test_layer_norm_over_the_table_lets_every_cell_depend_on_every_cell_at_once(page):
    press(page, "Channel mixing")
    for norm, n in [("channels", 8), ("tokens_channels", 128), ("none", 8)]:
        page.get_by_label("LayerNorm").select_option(norm)
        settle(page)
        assert f"{n} of 128" in facts(page)


@pytest.mark.parametrize("drawing", [0, 1])
def test_a_click_chooses_the_cell(page, drawing):
    page.locator(".mx svg").nth(drawing).locator("[data-cell='94']").click()
    settle(page)
    assert "channel 6 of token 11 (row 2, column 3 of" in facts(page)
    assert page.get_by_role("slider", name="Token").input_value() == "11"
    page.get_by_role("slider", name="Channel").press("ArrowRight")
    settle(page)
    assert numbers(page, drawing).index("0") == 95


def test_no_more_blocks_run_than_fit(page):
    press(page, *6 * ["Token mixing"])
    assert "start again" in facts(page)
    press(page, "Channel mixing")
    assert "16 of 128" in facts(page)


def test_a_block_spreads_from_cell_to_cell_unless_motion_is_reduced(page):
    press(page, "Token mixing")
    waits = "cells => cells.map((cell) => getComputedStyle(cell).transitionDelay.split(',')[0])"
    column = page.locator(".mx svg").first.locator("[data-cell]:not(:has(text:empty))")
    assert column.evaluate_all(waits)[5:8] == ["0s", "0.04s", "0.08s"]
    page.emulate_media(reduced_motion="reduce")
    page.wait_for_function(
        "getComputedStyle(document.querySelector('[data-cell]')).transitionProperty.split(',')[0] === 'none'"
    )


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        (dict(grid=(0, 4)), "rows"),
        (dict(grid=(4, 2.5)), "columns"),
        (dict(n_channel=1), "n_channel is 1; choose at least 2"),
        (dict(grid=(16, 16)), "256 tokens by 8 channels; choose sizes with at most 512 cells"),
    ],
)
def test_a_table_that_cannot_be_drawn_is_refused(sizes, words):
    with pytest.raises(ValueError, match=words):
        ReachExplorer(**sizes)


def test_traits_accept_only_what_there_is():
    explorer = ReachExplorer((2, 3), 4)
    explorer.token, explorer.channel, explorer.norm, explorer.blocks = 5, 3, "channels", ["token", "channel"]
    for name, value, words in [
        ("token", 6, "token is 6; choose from 0 to 5"),
        ("channel", 4, "channel is 4; choose from 0 to 3"),
        ("norm", "batch", "norm is batch; choose from none, channels, tokens_channels"),
        ("blocks", ["attention"], "a block is attention; choose from token, channel"),
        ("blocks", 7 * ["token"], "the number of blocks is 7; choose from 0 to 6"),
    ]:
        with pytest.raises(ValueError, match=words):
            setattr(explorer, name, value)
