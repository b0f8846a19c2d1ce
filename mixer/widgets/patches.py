"""PatchExplorer: an image beside its table of patches."""

import numpy as np
import traitlets
from torch import Tensor

from mixer.widgets.figure import Choice, LiveFigure, check_choice, check_image

LARGEST = 64 * 64 * 3  # numbers in an image; each is drawn on its own


class PatchExplorer(LiveFigure):
    """An image beside its table of patches: what `ImageToPatches` does, number by number.

    Traits: `patch_size`, a divisor of the image's sides; `token`, the row of the table that is lit up; `stage`, how far
    the numbers have moved, from 0 (the image) over 1 (cut) and 2 (axes exchanged) to 3 (the table), in hundredths;
    `permute`, False to see the wrong table that comes out without the exchange of the axes.

    Args:
        image: uint8 [C_in, H, W], grey or colour.
        patch_size: where the slider stands at first.

    Raises:
        ValueError: the image is not such a tensor or too large to be drawn, or the patch size does not divide it.
    """

    MODULE = "patches.js"
    image = traitlets.Bytes().tag(sync=True)
    shape = traitlets.List(traitlets.Int()).tag(sync=True)
    patch_sizes = traitlets.List(traitlets.Int()).tag(sync=True)
    patch_size = Choice(1)
    token = Choice(0)
    stage = Choice(0)
    permute = traitlets.Bool(True).tag(sync=True)

    def __init__(self, image: Tensor, patch_size: int = 4):
        check_image(image, LARGEST)
        _, H, W = image.shape
        sizes = [size for size in range(1, min(H, W) + 1) if H % size == 0 and W % size == 0]
        check_choice("patch_size", patch_size, sizes)
        pixels = image.cpu().contiguous().numpy().tobytes()
        super().__init__(image=pixels, shape=list(image.shape), patch_sizes=sizes, patch_size=patch_size)

    @property
    def n_tokens(self) -> int:
        _, H, W = self.shape
        return (H // self.patch_size) * (W // self.patch_size)

    @traitlets.validate("patch_size")
    def _check_patch_size(self, proposal):
        return check_choice("patch_size", proposal.value, self.patch_sizes)

    @traitlets.observe("patch_size")
    def _keep_token(self, _):
        self.token = min(self.token, self.n_tokens - 1)

    @traitlets.validate("token")
    def _check_token(self, proposal):
        return check_choice("token", proposal.value, range(self.n_tokens))

    @traitlets.validate("stage")
    def _check_stage(self, proposal):
        return check_choice("stage", proposal.value, range(301))

    def still(self) -> tuple[np.ndarray, str]:
        C, H, W = self.shape
        image = np.frombuffer(self.image, np.uint8).reshape(C, H, W).transpose(1, 2, 0)
        P = self.patch_size
        parts = image.reshape(H // P, P, W // P, P, C).transpose(0, 2, 1, 3, 4)
        gap = np.full((H // P, W // P, P + 1, P + 1, C), 255, np.uint8)
        gap[:, :, :P, :P] = parts
        cut = gap.transpose(0, 2, 1, 3, 4).reshape(H // P * (P + 1), W // P * (P + 1), C)
        words = f"An image of {H} by {W} pixels, cut into {self.n_tokens} patches of {P} by {P} pixels."
        return np.ascontiguousarray(np.broadcast_to(cut, (*cut.shape[:2], 3))), words
