"""Damaged states of live figures, drawn by chance: the figure is shown, or says in one sentence what is wrong.

`make fuzz` draws many more: hypothesis' profile "long".
"""

import json
import random

import pytest
import torch
from hypothesis import settings

from _extensions.chromium import PAYLOAD, Tab, write_page
from mixer import shipped_weights
from mixer.widgets import ConvolutionTwin, MixerFlow, PatchExplorer, TokenMixingExplorer

IS_LONG = settings.get_current_profile_name() == "long"

IMAGES = torch.arange(3 * 64, dtype=torch.uint8).reshape(3, 1, 8, 8)
FIGURES = {
    "PatchExplorer": lambda: PatchExplorer(IMAGES[0], 2),
    "TokenMixingExplorer": lambda: TokenMixingExplorer(shipped_weights("digits-1"), IMAGES, n_steps=2),
    "MixerFlow": lambda: MixerFlow(shipped_weights("digits-1"), IMAGES),
    "ConvolutionTwin": lambda: ConvolutionTwin(shipped_weights("digits-1"), IMAGES),
}
ODD = [None, -1, 0, 2, 1e308, "", "word", [], [1, [2]], {}, {"base64": "AA"}, {"base64": "%"}, True]


def change(state, chance: random.Random) -> None:
    """Put something odd in one place of a nested state, or leave it out."""
    places = list(state) if isinstance(state, dict) else range(len(state))
    place = chance.choice(places)
    if isinstance(state[place], (dict, list)) and state[place] and chance.random() < 0.7:
        change(state[place], chance)
    elif isinstance(state, dict) and chance.random() < 0.2:
        del state[place]
    else:
        state[place] = chance.choice(ODD)


@pytest.mark.parametrize("kind", FIGURES)
def test_any_damaged_state_is_shown_or_named_in_a_sentence(browser, tmp_path, kind):
    """No error in the console, no hang, and the sentence in the figure's own place."""
    path = write_page(tmp_path / "page.html", FIGURES[kind]())
    html = path.read_text(encoding="utf-8")
    payload = PAYLOAD.search(html)[1]
    tab = Tab(browser)
    for seed in range(400 if IS_LONG else 15):
        stored = json.loads(payload)
        change(stored["state"], random.Random(seed))
        path.write_text(html.replace(payload, json.dumps(stored).replace("<", "\\u003c")), encoding="utf-8")
        page = tab.open(path)
        said = page.locator("[role=alert]").all_inner_texts()
        assert (len(said) == 1 and "\n" not in said[0]) or page.locator(".mx canvas, .mx svg").count(), seed
        assert tab.problems == [], seed
    tab.page.close()
