"""How fast the page trains: `python benchmarks/lab.py` trains Mixers on the digits in Chromium and in torch, in turns.

Both train in float32 on one core, by the same recipe; what is compared is the time of the training steps alone. Each
turn of the page is a fresh one, in which the engine has rehearsed, as it does when a reader opens the page. While the
page trains, the time between its frames is taken.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"

import platform
import statistics
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the browser of the tests

from _extensions.chromium import Tab, started, write_page
from mixer import MLPMixer, fit, load_data
from mixer.widgets import TrainingLab

N_TURNS = 3
MODELS = {  # with the epochs of each
    "3 layers of 32 channels": dict(n_layers=3, n_channel=32, n_hidden=64, patch_size=2, n_epochs=30),
    "3 layers of 48 channels": dict(n_layers=3, n_channel=48, n_hidden=64, patch_size=2, n_epochs=30),
    "2 layers of 20 channels": dict(n_layers=2, n_channel=20, n_hidden=64, patch_size=2, n_epochs=10),
    "1 layer of 20 channels, 64 tokens": dict(n_layers=1, n_channel=20, n_hidden=64, patch_size=1, n_epochs=20),
}
RECIPE = dict(batch_size=64, lr=3e-3)
TRAIN = """async () => {
  const { model } = document.querySelector(".mixer-figure");
  model.set("running", true);
  const frames = [];
  const frame = () => new Promise(requestAnimationFrame);
  let last = await frame();
  do {
    const now = await frame();
    frames.push(now - last);
    last = now;
  } while (model.get("running"));
  const seconds = model.get("history").reduce((sum, record) => sum + record.seconds, 0);
  return [seconds, frames];
}"""


def main() -> None:
    torch.set_num_threads(1)
    data = load_data("digits")
    with tempfile.TemporaryDirectory() as folder, started() as browser:
        print(f"{platform.platform()}, {platform.processor() or platform.machine()}, Chromium {browser.version}")
        for name, settings in MODELS.items():
            page_file = write_page(Path(folder) / "page.html", TrainingLab(data, **settings, **RECIPE))
            sizes = {size: n for size, n in settings.items() if size != "n_epochs"}
            in_page, in_torch, frames = [], [], []
            for _ in range(N_TURNS):
                page = Tab(browser).open(page_file)
                seconds, between = page.evaluate(TRAIN)
                page.close()
                in_page.append(seconds)
                frames += between
                model = MLPMixer(n_output=10, image_size=8, n_image_channel=1, **sizes)
                history = fit(model, data, precision="fp32", n_epochs=settings["n_epochs"], **RECIPE)
                in_torch.append(sum(record["seconds"] for record in history))
            page_time, torch_time = statistics.median(in_page), statistics.median(in_torch)
            p95 = statistics.quantiles(frames, n=20)[-1]
            print(
                f"{name}, {settings['n_epochs']} epochs: page {page_time:.2f} s, torch {torch_time:.2f} s, ratio "
                f"{page_time / torch_time:.2f}; frames while it trains: median {statistics.median(frames):.1f} ms, "
                f"p95 {p95:.1f} ms"
            )


if __name__ == "__main__":
    main()
