"""How fast the model in the page answers: `python benchmarks/flow.py` prints what a stroke costs in Chromium.

A draw is what happens after each change: the forward pass, the influence map, and all pictures; the module itself marks
its start and its end. The image is a random one each time, and the chosen layer and token go round.
"""

import platform
import statistics
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the browser of the tests

import mixer
from _extensions.chromium import Tab, started, write_page
from mixer.widgets.flow import MixerFlow

N_DRAWS = 300
N_WARM = 50  # draws before the browser has compiled the code, counted apart
DRAWS = """async ([n, nTokens]) => {
  const { model } = document.querySelector(".mixer-figure");
  const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  for (let i = 0; i < n; i++) {
    model.set("layer", i % model.get("mixing").length);
    model.set("token", i % nTokens);
    const size = model.get("image").byteLength;
    model.set("image", new DataView(Uint8Array.from({ length: size }, () => 256 * Math.random()).buffer));
    await frame();
  }
  return performance.getEntriesByName("MixerFlow").map(({ startTime, duration }) => [startTime, duration]);
}"""


def figure() -> MixerFlow:
    """The shipped MNIST model with 20 images of random grey values, which cost as much as digits."""
    images = torch.randint(0, 256, (20, 1, 28, 28), dtype=torch.uint8)
    return MixerFlow(mixer.shipped_weights("mnist"), images)


def say(name: str, milliseconds: list[float]) -> None:
    p95 = statistics.quantiles(milliseconds, n=20)[-1]
    print(f"{name} ({len(milliseconds)}): median {statistics.median(milliseconds):.1f} ms, p95 {p95:.1f} ms")


def main() -> None:
    flow = figure()
    with tempfile.TemporaryDirectory() as folder, started() as browser:
        page = Tab(browser).open(write_page(Path(folder) / "page.html", flow))
        page.wait_for_function("performance.getEntriesByName('MixerFlow').length > 0")
        draws = page.evaluate(DRAWS, [N_WARM + N_DRAWS, flow.n_tokens])
        print(f"{platform.platform()}, {platform.processor() or platform.machine()}, Chromium {browser.version}")
    start, duration = draws[0]
    print(f"first picture: {start + duration:.0f} ms after the page was opened, its draw {duration:.0f} ms of them")
    say("draws before the browser is warm", [duration for _, duration in draws[1 : N_WARM + 1]])
    say("draws", [duration for _, duration in draws[N_WARM + 1 :]])
    print(f"figure: {len(flow.to_html().encode()):,} bytes")


if __name__ == "__main__":
    main()
