"""The explorer of token mixing: what it stores, its traits, and the live figure in a real browser."""

import base64
import re
from itertools import pairwise

import numpy as np
import pytest
import torch
from playwright.sync_api import expect

from _extensions.chromium import Tab, evaluate_within, settle, write_page
from mixer import analysis, checkpoint, shipped_weights
from mixer.data import normalise, pixel_order
from mixer.widgets.explorer import N_TOP, ORDERS, TokenMixingExplorer

STEPS = [0, 5, 9]
SIZES = dict(n_layers=2, n_hidden=7, image_size=(6, 8))  # a grid of 3 × 4 patches
NASTY = "</script><img src=x onerror=alert(1)>"
ABOUT = dict(mean=[0.3], std=[0.25])
SPECTRUM = """async () => {
  const { module } = JSON.parse(document.querySelector("script[type='application/json']").textContent);
  const url = URL.createObjectURL(new Blob([`${module}export { spectrum };`], { type: "text/javascript" }));
  const { default: figure, spectrum } = await import(url);
  Object.assign(window, { figure, spectrum });
}"""
RENDER_AGAIN = """async () => {
  const { model } = document.querySelector(".mixer-figure");
  const el = document.createElement("div");
  document.body.append(el);
  await figure.render({ model, el });
  return el.querySelectorAll("[role=alert]").length;
}"""


@pytest.fixture(scope="session")
def trained(small_model):
    def make(folder, name="model", steps=STEPS, about=ABOUT, seed=0, **changes):
        """A checkpoint with snapshots, of which the last is the model."""
        model = small_model(seed, **{**SIZES, **changes})
        share = {step: (i + 1) / len(steps) for i, step in enumerate(steps)}
        extra = {
            f"snapshot.{step}.{key}": share[step] * weight.detach() + (1 - share[step]) * torch.randn(weight.shape)
            for step in steps
            for key, weight in model.state_dict().items()
            if ".token_mixing.fc" in key
        }
        path = folder / f"{name}.safetensors"
        checkpoint.save(path, model, about, extra)
        return path

    return make


@pytest.fixture
def explorer(tmp_path, trained):
    return TokenMixingExplorer(trained(tmp_path))


def image_pool(n=9):
    return torch.randint(0, 256, (n, 1, 6, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


# ------------------------------------------------------------------------------------------------- without a browser


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("layer", 2, "layer is 2; choose from 0 to 1"),
        ("unit", -1, "unit is -1; choose from 0 to 6"),
        ("step", 10, "step is 10; choose from 0 to 9"),
        ("label", "other", "label is other; choose from model"),
        ("order", "size", "order is size; choose from norm, frequency, opposite"),
    ],
)
def test_traits_take_only_what_there_is(explorer, name, value, message):
    with pytest.raises(ValueError, match=message):
        setattr(explorer, name, value)
    assert (explorer.layer, explorer.unit, explorer.step, explorer.label, explorer.order) == (0, 0, 9, "model", "norm")
    assert (explorer.steps, explorer.n_units) == (STEPS, 7)


def test_what_cannot_be_explored_is_refused_in_a_sentence(tmp_path, small_model, trained):
    path = trained(tmp_path)
    for models, message in [
        ({}, "models is empty"),
        ({"a": 3}, "model 'a' is of type int; give an MLPMixer or the path"),
        (
            {"a": path, "b": small_model()},
            "model 'b' has a 2×2 grid of patches, n_layers 1 and n_hidden_token 5, but 'a'",
        ),
        ({"": path}, "the label '' is no text"),
    ]:
        with pytest.raises(ValueError, match=message):
            TokenMixingExplorer(models)
    with pytest.raises(ValueError, match="n_steps is 1; it must be a whole number of at least 2"):
        TokenMixingExplorer(path, n_steps=1)
    with pytest.raises(ValueError, match=r"images are torch.float32 \[9, 1, 6, 8\]; they must be uint8"):
        TokenMixingExplorer(path, image_pool().float())
    with pytest.raises(ValueError, match=r"images have shape \[9, 1, 8, 6\]; this model takes \[B, 1, 6, 8\]"):
        TokenMixingExplorer(path, image_pool().transpose(2, 3))
    with pytest.raises(ValueError, match="model 'model' does not say how to normalise images"):
        TokenMixingExplorer(small_model(**SIZES), image_pool())
    broken = small_model()
    broken.layers[0].token_mixing.fc1.weight.data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="not a finite number"):
        TokenMixingExplorer(broken)


def test_maps_are_those_of_the_weights_to_the_stated_accuracy(explorer, tmp_path):
    tensors, _ = checkpoint.read(tmp_path / "model.safetensors")
    model, _ = checkpoint.load(tmp_path / "model.safetensors")
    snapshots = checkpoint.snapshots(tensors)
    for step, weights in snapshots.items():
        for layer in range(2):
            explorer.step, explorer.layer = step, layer
            for which, stored in enumerate(explorer.maps()):
                exact = analysis.token_maps(model, layer, weights)[which]
                largest = max(analysis.token_maps(model, layer, w)[which].abs().max() for w in snapshots.values())
                assert stored.shape == exact.shape == (7, 3, 4)
                assert (stored - exact).abs().max() <= largest / 126 * (1 + 1e-5)


def test_between_snapshots_weights_are_interpolated(explorer):
    maps = {}
    for explorer.step in (5, 6, 9):
        maps[explorer.step] = explorer.maps()[0]
    assert torch.allclose(maps[6], 0.75 * maps[5] + 0.25 * maps[9], atol=1e-6)


def test_the_shipped_runs_are_shown_with_all_their_snapshots():
    for name in ("digits-1", "mnist-14x14"):
        explorer = TokenMixingExplorer(shipped_weights(name))
        assert len(explorer.steps) == 12
        assert len(explorer.to_html()) < 550_000


def test_a_page_stays_small(tmp_path, trained):
    sizes = dict(n_layers=4, n_hidden=48, image_size=16)  # 8 × 8 patches
    path = trained(tmp_path, steps=list(range(20)), **sizes)
    small = TokenMixingExplorer(path, n_steps=8)
    assert small.steps == [0, 3, 5, 8, 11, 14, 16, 19]
    maps = 8 * 4 * 2 * 48 * 64
    assert len(small.numbers) < 0.95 * maps  # noise, which does not shrink as weights of a run do
    images = torch.randint(0, 256, (30, 1, 16, 16), dtype=torch.uint8)
    places = 4 * 48 * N_TOP * 64
    grown = len(TokenMixingExplorer(path, images, n_steps=8).numbers) - len(small.numbers)
    assert grown < images.numel() + 1.5 * places


def test_models_whose_training_was_not_recorded(tmp_path, small_model, trained):
    explorer = TokenMixingExplorer({"run": trained(tmp_path), "plain": small_model(**SIZES)})
    explorer.step = 5
    explorer.label = "plain"
    assert (explorer.steps, explorer.step) == ([0], 0)
    explorer.label = "run"
    assert explorer.step == 0


@pytest.mark.parametrize("shuffle", ["none", "global"])
def test_the_images_that_excite_a_unit_most(tmp_path, shuffle, small_data, trained):
    path = trained(tmp_path, about={**ABOUT, "shuffle": shuffle})
    explorer = TokenMixingExplorer(path, image_pool())
    model, about = checkpoint.load(path)
    seen = {}
    for i, layer in enumerate(model.layers):
        layer.token_mixing.fc1.register_forward_hook(lambda *a, i=i: seen.update({i: a[2]}))
    data = small_data()
    data.image_shape, data.mean, data.std = (1, 6, 8), about["mean"], about["std"]
    model(data.shuffled(shuffle).normalise(image_pool()))
    arrays = explorer._arrays
    for layer, sums in seen.items():  # [B, n_channel, n_units]
        exact = sums.amax(dim=1).topk(N_TOP, dim=0)
        used = np.array(explorer.geometry["images"]["used"])
        assert (used[arrays["0.chosen"][layer]] == exact.indices.T.numpy()).all()
        assert torch.allclose(torch.from_numpy(arrays["0.pre_activations"][layer]), exact.values.T, atol=1e-5)
        contributions = arrays["0.contributions"][layer] * arrays["0.contribution_scales"][layer]
        bias = model.layers[layer].token_mixing.fc1.bias.detach().numpy()
        rounding = 12 * arrays["0.contribution_scales"][layer].max() / 2  # 12 patches, each off by half a step
        assert np.abs(contributions.sum(2) + bias[:, None] - exact.values.T.detach().numpy()).max() < rounding
    assert arrays["images"].shape == (len(used), 1, 6, 8)
    assert (arrays["images"] == image_pool().numpy()[used]).all()


# ---------------------------------------------------------------------------------------------------- in a browser

PIXELS = """canvas => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  return btoa(Array.from(data, (byte) => String.fromCharCode(byte)).join(""));
}"""


def pixels(canvas):
    """The colours of a canvas, [height, width, 3]."""
    width, height = canvas.evaluate("canvas => [canvas.width, canvas.height]")
    found = np.frombuffer(base64.b64decode(canvas.evaluate(PIXELS)), np.uint8)
    return found.reshape(height, width, 4)[..., :3].astype(int)


def opened(tab, folder, *figures):
    return tab.open(write_page(folder / "page.html", *figures))


def sheet_of(page):
    return page.locator(".mx-sheet > canvas")


def map_on(sheet, place, is_paired=False, n=8, shape=(3, 4)):
    """The map at a place of a sheet, one colour a weight: its cells have whole pixels and one colour each."""
    rows, columns = shape
    width = sheet.shape[1]
    gaps = n - 1 + (n // 2 - 1 if is_paired else 0)
    size = (width - 4 * gaps) // (n * columns)
    gap = min(12, (width - n * columns * size) // gaps)
    column, row = place % n, place // n
    left = column * (columns * size + gap) + (column // 2 * gap if is_paired else 0)
    top = row * (rows * size + 5 + gap)  # 5 pixels for the bar
    cells = sheet[top : top + rows * size, left : left + columns * size].reshape(rows, size, columns, size, 3)
    assert (cells == cells[:, :1, :, :1]).all()
    return cells[:, 0, :, 0]


def status_of(page):
    return page.locator(".mx-wide p[role=status]")


def set_traits(page, **traits):
    model = "document.querySelector('.mixer-figure').model"
    page.evaluate(f"(traits) => Object.entries(traits).forEach(([name, value]) => {model}.set(name, value))", traits)


def chosen(page):
    """The unit that the status line names."""
    settle(page)
    return int(status_of(page).inner_text().split()[1])


def drawn(maps, limit):
    """The colours of weights on a light page."""
    shares = (maps / limit).clip(-1, 1)[..., None]
    zero, below, above = np.array([247, 247, 247]), np.array([33, 102, 172]), np.array([178, 24, 43])
    return zero + np.abs(shares) * (np.where(shares < 0, below, above) - zero)


def test_maps_are_drawn_with_the_scale_of_the_last_step(explorer, tab, tmp_path):
    page = opened(tab, tmp_path, explorer)
    model, _ = checkpoint.load(tmp_path / "model.safetensors")
    limits = [np.quantile(maps.detach().abs(), 0.99) for maps in analysis.token_maps(model, 0)]
    set_traits(page, step=5, unit=3)
    expect(status_of(page)).to_contain_text("Unit 3 of layer 0 at training step 5:")
    explorer.step = 5
    for name, maps, limit in zip(("input", "output"), explorer.maps(), limits, strict=True):
        canvas = page.get_by_role("img", name=f"The {name} map of unit 3 ")
        assert np.abs(pixels(canvas) - drawn(maps[3].numpy(), limit)).max() < 0.51  # rounded


@pytest.mark.parametrize("grid", [(4, 4), (7, 7), (3, 5), (1, 9), (6, 1), (128, 128), (200, 224), (1, 2000)])
def test_a_spectrum_is_that_of_numpy_and_quick_on_large_grids(explorer, tab, tmp_path, grid):
    page = opened(tab, tmp_path, explorer)
    page.evaluate(SPECTRUM)
    values = np.random.default_rng(0).standard_normal(grid).astype(np.float32)
    power = evaluate_within(page, 5, "(...given) => [...spectrum(...given)]", values.flatten().tolist(), *grid)
    expected = np.fft.fftshift(np.abs(np.fft.fft2(values)) ** 2)
    assert np.abs(np.reshape(power, grid) - expected).max() < 1e-4 * expected.max()


def test_a_large_grid_is_drawn_without_a_wait(tab, tmp_path, trained):
    """224 × 224 patches: every part of the figure once, in one call."""
    path = trained(tmp_path, image_size=224, patch_size=1, steps=[0])
    page = opened(tab, tmp_path, TokenMixingExplorer(path, torch.randint(0, 256, (2, 1, 224, 224), dtype=torch.uint8)))
    page.evaluate(SPECTRUM)
    assert evaluate_within(page, 5, RENDER_AGAIN) == 0


def test_the_facts_of_a_unit(explorer, tab, tmp_path):
    page = opened(tab, tmp_path, explorer)
    maps, _ = explorer.maps()
    flat = torch.nn.functional.normalize(maps.flatten(1), dim=1)
    cosines = (flat @ flat[0])[1:]
    weights = checkpoint.load(tmp_path / "model.safetensors")[0].layers[0].token_mixing.fc1
    facts = status_of(page).inner_text().replace("−", "-")
    assert f"norm {maps[0].norm():.2f} and mean frequency {analysis.mean_frequency(maps)[0]:.2f} cycles" in facts
    assert f"bias {weights.bias[0]:.2f}. Most opposite input map: unit {cosines.argmin() + 1}," in facts
    assert f"cosine {cosines.min():.2f}." in facts
    power = torch.fft.fftshift(torch.fft.fft2(maps).abs() ** 2, dim=(1, 2))[0].numpy()
    assert np.abs(pixels(page.get_by_role("img", name="spectrum"))[..., 0] - 255 * power / power.max()).max() < 1.5


def test_orders_agree_with_the_analysis(explorer, tab, tmp_path):
    page = opened(tab, tmp_path, explorer)
    set_traits(page, layer=1)
    explorer.layer = 1
    maps, _ = explorer.maps()
    paired = [unit for first, second, _ in analysis.opposite_pairs(maps) for unit in (first, second)]
    expected = {
        "norm": maps.flatten(1).norm(dim=1).argsort(descending=True).tolist(),
        "frequency": analysis.mean_frequency(maps).argsort().tolist(),
        "opposite": paired + [unit for unit in range(7) if unit not in paired],
    }
    for order in ORDERS:
        page.get_by_label("Order").select_option(order)
        slider = page.get_by_label("Unit", exact=True)
        slider.press("Home")
        for place, unit in enumerate(expected[order]):
            assert chosen(page) == unit
            sheet = pixels(sheet_of(page))
            large = pixels(page.get_by_role("img", name="The input map of unit"))
            assert np.abs(map_on(sheet, place, order == "opposite") - large).max() <= 2  # it has 255 colours
            slider.press("ArrowRight")


def test_a_unit_is_chosen_by_mouse_and_by_keys(tab, tmp_path, trained):
    explorer = TokenMixingExplorer(trained(tmp_path, n_hidden=20))
    page = opened(tab, tmp_path, explorer)
    for order in ("norm", "opposite"):
        page.get_by_label("Order").select_option(order)
        settle(page)
        units = explorer._arrays["0.orders"][0, ORDERS.index(order)].tolist()
        box = sheet_of(page).bounding_box()
        for row, column in [(2, 0), (1, 2)]:
            place = 8 * row + column
            middle = {"x": box["width"] * (column + 0.5) / 8, "y": box["height"] * (row + 0.5) / 3}
            sheet_of(page).click(position=middle)
            assert chosen(page) == units[place]
        pad = page.get_by_role("group", name="Maps")
        for key, step in [("ArrowRight", 1), ("ArrowUp", -8), ("ArrowUp", 0), ("ArrowLeft", -1), ("ArrowDown", 8)]:
            pad.press(key)
            place += step
            assert chosen(page) == units[place], key
        frame, large = page.locator(".mx-frame:not(.mx-dashed)").bounding_box(), sheet_of(page).bounding_box()
        assert (
            abs(frame["y"] - large["y"] - (large["height"] - 2 * frame["height"] - frame["height"]) / 2 / 2)
            < large["height"] / 2
        )


def test_a_kernel_that_sets_the_label_before_the_step_is_followed(tab, tmp_path, trained):
    """Two messages, between which the page may draw: the step is still that of the longer run."""
    models = {"long": trained(tmp_path, "long"), "short": trained(tmp_path, "short", steps=STEPS[:2])}
    page = opened(tab, tmp_path, TokenMixingExplorer(models))
    figure = "document.querySelector('.mixer-figure').model"
    page.evaluate(f"{figure}.set('step', {STEPS[-1]}); {figure}.set('label', 'short')")
    settle(page)
    expect(status_of(page)).to_contain_text(f"step {STEPS[1]}")
    assert page.locator("[role=alert]").count() == 0


def test_layer_and_model_are_chosen_by_keys(tab, tmp_path, small_model, trained):
    models = {name: trained(tmp_path, f"m{seed}", seed=seed) for seed, name in enumerate([NASTY, "second"])}
    page = opened(tab, tmp_path, TokenMixingExplorer({**models, "plain": small_model(5, **SIZES)}))
    seen = [pixels(sheet_of(page))]
    page.get_by_label("Layer", exact=True).press("ArrowRight")
    expect(status_of(page)).to_contain_text("of layer 1 ")
    seen.append(pixels(sheet_of(page)))
    model = page.get_by_label("Model")
    assert model.locator("option").all_inner_texts() == [NASTY, "second", "plain"]
    assert page.locator("img[src=x]").count() == 0
    model.press("ArrowDown")
    expect(model).to_have_value("second")
    settle(page)
    seen.append(pixels(sheet_of(page)))
    assert all((a != b).any() for a, b in pairwise(seen))
    expect(page.get_by_label("Training step")).to_be_visible()
    model.press("ArrowDown")
    expect(page.get_by_label("Training step")).to_be_hidden()
    assert page.evaluate("document.querySelector('.mixer-figure').model.get('step')") == 0


def test_time_is_played_and_a_slider_that_is_moved_pauses_it(explorer, tab, tmp_path):
    """The stops of the slider are the steps 0 to 9, as no more than 8 lie between two snapshots."""
    tab.page.clock.install(time=0)
    page = opened(tab, tmp_path, explorer)
    page.clock.pause_at(3_600_000)  # later than any page has opened; from here on it stands still unless it is told
    status, slider, play = status_of(page), page.get_by_label("Training step"), page.locator(".mx-timebar button")
    last = pixels(sheet_of(page))
    slider.press("ArrowLeft")
    page.clock.run_for(50)
    expect(status).to_contain_text("at training step 8:")
    expect(page.get_by_text("Between two snapshots: interpolated.")).to_be_visible()
    assert (pixels(sheet_of(page)) != last).any()
    slider.press("End")
    play.click()
    page.clock.run_for(4 * 60 + 30)
    expect(status).to_contain_text("at training step 3:")
    expect(play).to_have_text("Pause")
    slider.press("ArrowRight")
    expect(play).to_have_text("Play")
    page.clock.run_for(2000)
    expect(status).to_contain_text("at training step 4:")
    play.click()
    page.clock.run_for(2000)
    expect(status).to_contain_text("at training step 9:")
    expect(play).to_have_text("Play")
    assert (pixels(sheet_of(page)) == last).all()


def test_time_is_dragged_on_the_curve(explorer, tab, tmp_path):
    page = opened(tab, tmp_path, explorer)
    box = page.locator(".mx-chart").bounding_box()
    y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 0.9 * box["width"], y)
    page.mouse.down()
    page.mouse.move(box["x"] + 5 / 9 * box["width"], y)
    expect(status_of(page)).to_contain_text("at training step 5:")
    page.mouse.up()
    assert page.locator(".mx-chart .mx-old").count() == len(STEPS)


@pytest.mark.parametrize(
    "history", [None, [{"epoch": 1, "validation_loss": 2.0}, {"epoch": 2, "validation_loss": 0.5}]]
)
def test_the_curve_is_the_loss_where_the_checkpoint_tells_it(tab, tmp_path, trained, history):
    path = trained(tmp_path, about=ABOUT | ({"history": history} if history else {}))
    page = opened(tab, tmp_path, TokenMixingExplorer(path))
    words = "Loss on the validation images" if history else "Mean norm of the input maps"
    expect(page.get_by_role("img", name=words)).to_be_visible()
    if history:
        points = page.locator(".mx-chart polyline").get_attribute("points").split()
        assert points == ["300.0,6.0", "600.0,46.5"]  # steps 4.5 and 9 of 9; the second a quarter as high
        for step, reading in ((9, ": 0.500 at this step;"), (7, ": 1.167 at this step;"), (4, "epoch on;")):
            page.get_by_label("Training step").fill(str(step))
            expect(page.locator(".mx-timebar .mx-note")).to_contain_text(reading)


def test_nothing_moves_by_itself_where_stillness_is_asked_for(explorer, tab, tmp_path):
    tab.page.emulate_media(reduced_motion="reduce")
    page = opened(tab, tmp_path, explorer)
    button = page.get_by_role("button", name="Next step")
    for step in STEPS:
        button.click()
        expect(status_of(page)).to_contain_text(f"at training step {step}:")
    expect(button).to_have_text("Next step")


def test_exciting_images_stand_with_their_contributions(tab, tmp_path, small_data, trained):
    path = trained(tmp_path, about={**ABOUT, "shuffle": "global"})
    explorer = TokenMixingExplorer(path, image_pool())
    page = opened(tab, tmp_path, explorer)
    set_traits(page, unit=4)
    expect(page.get_by_text("What excites unit 4 most")).to_be_visible()
    number = explorer.geometry["images"]["used"][explorer._arrays["0.chosen"][0, 4, 0]]
    data = small_data()
    data.image_shape, data.mean, data.std = (1, 6, 8), [0.0], [1.0]
    seen = data.shuffled("global").normalise(image_pool())[number, 0] * 255
    picture = page.get_by_role("img", name=f"Image {number}.")
    assert (pixels(picture)[..., 0] == seen.round().numpy()).all()
    assert page.locator(".mx-maps").last.locator("canvas").count() == 2 * N_TOP
    height = f"{explorer._arrays['0.pre_activations'][0, 4, 0]:.2f}".replace("-", "−")
    expect(
        page.get_by_text(f"image {number}, channel {explorer._arrays['0.channels'][0, 4, 0]}: {height}")
    ).to_be_visible()


DRAWN = """([width, height]) => {
  const board = document.querySelector(".mx-board");
  const box = board.getBoundingClientRect();
  const at = (x, y) => ({ clientX: box.left + x * box.width, clientY: box.top + y * box.height, pointerId: 1 });
  board.setPointerCapture = () => {};
  board.hasPointerCapture = () => true;
  board.dispatchEvent(new PointerEvent("pointerdown", at(0.3, 0.2)));
  for (const [x, y] of [[0.7, 0.2], [0.5, 0.9]]) board.dispatchEvent(new PointerEvent("pointermove", at(x, y)));
  const canvas = board.querySelector("canvas");
  return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => {
    const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
    done([...data].filter((_, i) => i % 4 === 0));
  })));
}"""
FACTS = re.compile(
    r"The model reads (.+) \(([\d.]+) %\)\. Most excited: units ([\d, ]+)\. Unit \d+ fires with ([−\d.]+) in"
)


@pytest.mark.parametrize("about", [{}, {"shuffle": "global"}])
@pytest.mark.parametrize("norm", ["channels", "tokens_channels"])
def test_a_drawing_shows_which_units_fire_and_where(tab, tmp_path, trained, norm, about):
    """The firing, the contributions and the answer of layer 1, by torch."""
    names = ["one", NASTY, "three"]
    path = trained(tmp_path, norm=norm, n_output=3, about={**ABOUT, **about, "class_names": names})
    explorer = TokenMixingExplorer(path)
    page = opened(tab, tmp_path, explorer)
    set_traits(page, layer=1, unit=2)
    image = torch.tensor(page.evaluate(DRAWN, [8, 6]), dtype=torch.uint8).view(1, 1, 6, 8)
    assert image.any()
    model, about = checkpoint.load(path)
    for explorer.layer, layer in enumerate(model.layers):  # with the weights as they are stored
        inputs, outputs = (maps.flatten(1) for maps in explorer.maps())
        layer.token_mixing.fc1.weight.data, layer.token_mixing.fc2.weight.data = inputs, outputs.T.contiguous()
    order = pixel_order(about.get("shuffle", "none"), (6, 8), 2)
    logits, results = model.forward_intermediates(normalise(image, about["mean"], about["std"], order))
    hidden = results["layers.1.token_mixing.hidden"][0]  # [n_channel, n_hidden]
    name, share, most, fires = FACTS.match(page.locator(".mx-draw p[role=status]").inner_text()).groups()
    assert name == names[logits.argmax()]
    assert float(share) / 100 == pytest.approx(logits.softmax(dim=1).max().item(), abs=0.002)
    assert float(fires.replace("−", "-")) == pytest.approx(hidden[:, 2].max().item(), abs=0.007)
    assert int(most.split(",")[0]) == hidden.amax(dim=0).argmax()
    page.get_by_label("In the maps above").check()
    settle(page)
    block = model.layers[1].token_mixing
    channel = hidden[:, 2].argmax()
    x = block.norm(results["layers.0.channel_mixing"])[0, :, channel]
    exact = (block.fc1.weight[2] * x).detach().view(3, 4).numpy()
    picture = page.get_by_role("img", name="What the patches of the drawing contribute to unit 2")
    assert np.abs(pixels(picture) - drawn(exact, np.abs(exact).max())).max() < 2
    place = explorer._arrays["0.orders"][1, 0].tolist().index(2)
    on_sheet = map_on(pixels(sheet_of(page)), place)
    strong = np.abs(exact) > 0.5 * np.abs(exact).max()
    assert ((on_sheet[..., 0] > on_sheet[..., 2]) == (exact > 0))[strong].all()
    page.get_by_role("button", name="Clear").click()
    expect(page.get_by_text("The model reads")).to_be_hidden()


def test_a_model_of_colour_images_reads_no_drawings(tab, tmp_path, trained):
    path = trained(tmp_path, n_image_channel=3, about=dict(mean=[0.1] * 3, std=[0.2] * 3, class_names=["a", "b"]))
    explorer = TokenMixingExplorer(path)
    assert explorer.engine == b""
    assert opened(tab, tmp_path, explorer).locator(".mx-board").count() == 0


def test_a_map_under_the_mouse_is_shown_large(explorer, tab, tmp_path):
    page = opened(tab, tmp_path, explorer)
    preview = page.locator(".mx-preview")
    expect(preview).to_be_hidden()
    for place in (0, 5):
        box = sheet_of(page).bounding_box()
        page.mouse.move(box["x"] + (place + 0.5) * box["width"] / 8, box["y"] + 10)
        unit = explorer._arrays["0.orders"][0, 0, place]
        expect(preview).to_contain_text(f"Unit {unit}")
        assert np.abs(pixels(preview.locator("canvas")) - map_on(pixels(sheet_of(page)), place)).max() <= 2
        assert preview.bounding_box()["width"] > 200
    page.mouse.move(2, 2)
    expect(preview).to_be_hidden()


def test_the_sheet_is_as_wide_as_the_figure(tab, tmp_path):
    page = opened(tab, tmp_path, TokenMixingExplorer(shipped_weights("mnist-14x14")))
    for width, least in [(780, 700), (420, 300)]:  # of the window; 780 leaves as much as a page of 1280
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_function(
            """([least, most]) => {
              const { clientWidth, width } = document.querySelector(".mx-sheet > canvas");
              return clientWidth === width && least <= width && width <= most;
            }""",
            arg=[least, width],
        )
        settle(page)
        sheet = pixels(sheet_of(page))
        n = max(n for n in (2, 4, 6, 8) if n == 2 or (sheet.shape[1] - 4 * (n - 1)) // (14 * n) * 14 >= 44)
        assert map_on(sheet, 0, n=n, shape=(14, 14)).shape == (14, 14, 3)


def test_nothing_to_switch_is_not_offered(tab, tmp_path, small_model):
    page = opened(tab, tmp_path, TokenMixingExplorer(small_model()))
    expect(page.get_by_label("Order")).to_be_visible()
    assert page.get_by_label("Model").count() == page.get_by_label("Layer", exact=True).count() == 0
    expect(page.get_by_label("Training step")).to_be_hidden()
    expect(page.get_by_text("What excites")).to_have_count(0)


def test_the_theme_changes_the_colours(explorer, tab, tmp_path):
    page = opened(tab, tmp_path, explorer)
    light = pixels(sheet_of(page))
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    settle(page)
    dark = pixels(sheet_of(page))
    assert map_on(dark, 0).mean() < 128 < map_on(light, 0).mean()


def test_damage_is_said_and_spares_its_neighbour(explorer, tab, tmp_path):
    damaged = TokenMixingExplorer(tmp_path / "model.safetensors")
    damaged.numbers = damaged.numbers[:-1]
    page = opened(tab, tmp_path, damaged, explorer)
    expect(page.get_by_role("alert")).to_have_text(
        "This figure cannot come to life: its weights are damaged or incomplete"
    )
    page.get_by_label("Unit", exact=True).press("End")
    assert chosen(page) == explorer._arrays["0.orders"][0, 0, -1]


def test_a_narrow_page_does_not_scroll_sideways(browser, tmp_path, trained):
    tab = Tab(browser, viewport={"width": 390, "height": 800})
    path = trained(tmp_path, n_hidden=64)
    explorer = TokenMixingExplorer({NASTY * 3: path, "again": path}, image_pool())
    page = opened(tab, tmp_path, explorer)
    expect(status_of(page)).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    tab.page.close()
    assert tab.problems == []
