"""ReachExplorer: the cells of a table that can depend on one of them, block after block."""

import numpy as np
import traitlets

from mixer.config import check_positive
from mixer.widgets.figure import Choice, LiveFigure, check_choice

LARGEST = 512  # cells of a table; each is drawn on its own
NORMS = ["none", "channels", "tokens_channels"]
BLOCKS = ["token", "channel"]
MOST_BLOCKS = 6
INKS = {"start": (0, 0, 0), "token": (0, 114, 178), "channel": (213, 94, 0)}


class ReachExplorer(LiveFigure):
    """A table of tokens and the cells that can depend on one chosen cell, after each block of a mixer layer.

    What counts is whether an entry of the Jacobian can differ from 0, not how large it is. The residual connection is
    part of each block. The page computes it; no weights are needed.

    Traits: `token` and `channel`, the chosen cell; `norm`, the axes of LayerNorm in each block, "channels",
    "tokens_channels" (the default of `MixerConfig`) or "none"; `blocks`, the blocks that ran, in order, each "token" or
    "channel".

    Args:
        grid: rows and columns of the patches; a token is one of them.
        n_channel: columns of the table.

    Raises:
        ValueError: a size is not a whole number of at least 1, there is one channel only, whose LayerNorm would be a
            constant, or the table has more than 512 cells.
    """

    MODULE = "reach.js"
    grid = traitlets.List(traitlets.Int()).tag(sync=True)
    n_channel = traitlets.Int().tag(sync=True)
    token = Choice(0)
    channel = Choice(0)
    norm = traitlets.Unicode("none").tag(sync=True)
    blocks = traitlets.List(traitlets.Unicode()).tag(sync=True)

    def __init__(self, grid: tuple[int, int] = (4, 4), n_channel: int = 8):
        rows, columns = grid
        rows, columns, n_channel = check_positive(rows=rows, columns=columns, n_channel=n_channel)
        if n_channel == 1:
            raise ValueError("n_channel is 1; choose at least 2, because LayerNorm over one channel is a constant")
        if rows * columns * n_channel > LARGEST:
            size = f"{rows * columns} tokens by {n_channel} channels"
            raise ValueError(f"the table has {size}; choose sizes with at most {LARGEST} cells")
        middle = (rows - 1) // 2 * columns + (columns - 1) // 2
        super().__init__(grid=[rows, columns], n_channel=n_channel, token=middle, channel=(n_channel - 1) // 2)

    @property
    def n_tokens(self) -> int:
        return self.grid[0] * self.grid[1]

    @traitlets.validate("token")
    def _check_token(self, proposal):
        return check_choice("token", proposal.value, range(self.n_tokens))

    @traitlets.validate("channel")
    def _check_channel(self, proposal):
        return check_choice("channel", proposal.value, range(self.n_channel))

    @traitlets.validate("norm")
    def _check_norm(self, proposal):
        return check_choice("norm", proposal.value, NORMS)

    @traitlets.validate("blocks")
    def _check_blocks(self, proposal):
        check_choice("the number of blocks", len(proposal.value), range(MOST_BLOCKS + 1))
        return [check_choice("a block", block, BLOCKS) for block in proposal.value]

    def still(self) -> tuple[np.ndarray, str]:
        """The chosen cell, and what token mixing and then channel mixing reach without LayerNorm."""
        tables = np.full((3, self.n_tokens, self.n_channel, 3), 225, np.uint8)
        tables[2] = INKS["channel"]
        tables[1:, :, self.channel] = INKS["token"]
        tables[:, self.token, self.channel] = INKS["start"]
        cells = np.pad(tables.repeat(10, 1).repeat(10, 2), ((0, 0), (0, 0), (0, 20), (0, 0)), constant_values=255)
        cells[:, 9::10] = cells[:, :, 9::10] = 255
        words = (
            f"A table of {self.n_tokens} tokens by {self.n_channel} channels, three times: the chosen cell; the column "
            "that depends on it after token mixing; the whole table after channel mixing."
        )
        return np.ascontiguousarray(np.concatenate(cells, axis=1)), words
