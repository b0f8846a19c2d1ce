"""The model in the page: in Chromium its numbers are those of torch, and every control changes what is seen."""

from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from _extensions.chromium import Tab, settle, write_page
from mixer import checkpoint, load_checkpoint, load_data, shipped_weights
from mixer.data import normalise
from mixer.widgets.flow import MOST_LAYERS, MixerFlow

HOSTILE = "</script><img src=x onerror=alert(1)>"
ABOUT = dict(mean=[0.3], std=[0.25], class_names=["top", "second", HOSTILE])
# The module as m, its engine, and a function that holds a model in it and reads images: all tables of each.
IMPORT = """async () => {
  const { module, state } = JSON.parse(document.querySelector("script[type='application/json']").textContent);
  const view = ({ base64 }) => new DataView(Uint8Array.from(atob(base64), (byte) => byte.charCodeAt(0)).buffer);
  const text = `${module}export { bytes, colour, creditOf, drawMap, Engine, fromHalves, tablesOf, tensorsOf, unpack };`;
  const m = await import(URL.createObjectURL(new Blob([text], { type: "text/javascript" })));
  const engine = await m.Engine.start(m.bytes(view(state.engine)));
  const copies = (tables) => Object.fromEntries(Object.entries(tables).map(([name, table]) => [name, [...table]]));
  const read = (config, weights, data, images, mixing) => {
    engine.hold(config, m.tensorsOf(config).map(([name]) => weights[name]), data);
    return images.map((image) => {
      engine.read(image, mixing);
      return copies(m.tablesOf(engine, config));
    });
  };
  Object.assign(window, { m, state, view, engine, read });
}"""
READ_STATE = """(images) => {
  const { config, mean, std, weights, tensors } = state;
  return read(config, m.unpack(view(weights), tensors), { mean: [mean], std: [std] }, images);
}"""
# The engine starts when the test says so.
HELD = """const start = WebAssembly.instantiate;
WebAssembly.instantiate = (bytes) => new Promise((go) => Object.assign(window, { go })).then(() => start(bytes));"""
# Time stands still until the test sets it.
CLOCK = "window.now = 1; performance.now = () => now;"
PIXELS = """(canvas) => {
  const { width, height } = canvas;
  return [width, height, [...canvas.getContext("2d").getImageData(0, 0, width, height).data]];
}"""
COLOURS = """() => {
  const values = Array.from({ length: 600 }, () => 3 * Math.random() - 1.5);
  const canvas = document.createElement("canvas");
  return [false, true].map((dark) => {
    m.drawMap(canvas, values, 20, 30, 1.2, dark);
    const drawn = canvas.getContext("2d").getImageData(0, 0, 30, 20).data;
    return values.every((value, i) => [...m.colour(value, 1.2, dark), 255].every((c, k) => drawn[4 * i + k] === c));
  });
}"""


@pytest.fixture(scope="session")
def save(small_model):
    def make(tmp_path, about=ABOUT, **changes):
        """The path of a small model with its metadata."""
        path = tmp_path / "small.safetensors"
        checkpoint.save(path, small_model(**changes), about)
        return path

    return make


@pytest.fixture(scope="session")
def small_figure(save):
    def make(tmp_path):
        images = torch.arange(5 * 16, dtype=torch.uint8).mul(3).view(5, 1, 4, 4)
        return MixerFlow(save(tmp_path, n_layers=2), images, [0, 1, 2, 0, 1])

    return make


@pytest.fixture(scope="module")
def digits():
    split = load_data("digits").test
    return MixerFlow(shipped_weights("digits-1"), split.images[:20], split.labels[:20])


@pytest.fixture(scope="module")
def mnist(data_place):
    """MNIST's test images; the weights are shipped, but the images may not be on this machine."""
    if not (data_place / "MNIST").is_dir():
        pytest.skip("MNIST is not on this machine")
    return load_data("mnist", data_place).test


@pytest.fixture
def js(tab, tmp_path, small_figure):
    """Evaluate an expression of the module `m` of a figure, in a page that holds it."""
    page = tab.open(write_page(tmp_path / "page.html", small_figure(tmp_path)))
    page.evaluate(IMPORT)
    return page.evaluate


def plain(tensors):
    return {name: tensor.flatten().tolist() for name, tensor in tensors.items()}


def assert_close(numbers, expected, tolerance):
    numbers = torch.as_tensor(numbers, dtype=torch.float64)
    assert numbers.numel() == expected.numel()
    assert (numbers.view(expected.shape) - expected).abs().max() <= tolerance


# ------------------------------------------------------------------------------------------------- the numbers


def test_halves_are_float16(js):
    patterns = np.arange(65_536, dtype=np.uint16)
    finite = patterns[np.isfinite(patterns.view(np.float16))]
    code = "(bits) => Array.from(m.fromHalves(Uint16Array.from(bits)))"
    assert js(code, finite.tolist()) == finite.view(np.float16).astype(float).tolist()
    wrong = np.setdiff1d(patterns, finite).tolist()
    refused = """(wrong) => wrong.filter((bits) => {
      try { m.fromHalves(Uint16Array.of(bits)) } catch { return true }
    })"""
    assert js(refused, wrong) == wrong


@pytest.mark.parametrize("kind", ["none", "tanh"])
def test_gelu(js, kind):
    x = torch.linspace(-6, 6, 997, dtype=torch.float64)
    values = js(f"(x) => x.map((value) => engine.calls.gelu(value, {int(kind == 'tanh')}))", x.tolist())
    assert_close(values, F.gelu(x, approximate=kind), 1e-6)


def test_maps_have_the_colours_of_single_weights(js):
    assert js(COLOURS) == [True, True]


SIZES = {
    "odd, in colour": dict(n_image_channel=3, image_size=(6, 4), n_channel=5, n_hidden_token=3, n_hidden_channel=9),
    "even": dict(image_size=8, n_channel=12, n_hidden_token=8, n_hidden_channel=16),
    "one token, one channel": dict(patch_size=4, n_channel=1, n_hidden=1),
}


@pytest.mark.parametrize("norm", ["channels", "tokens_channels"])
@pytest.mark.parametrize("gelu", ["erf", "tanh"])
@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_every_step_of_small_models(js, sizes, norm, gelu, small_model):
    model = small_model(norm=norm, gelu=gelu, n_layers=2, eps=1e-3, **sizes).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.7)  # LayerNorm's own weights too
    C, H, W = model.image_shape
    image = torch.randint(0, 256, (1, C, H, W), dtype=torch.uint8)
    data = dict(mean=[0.4, 0.5, 0.6][:C], std=[0.3, 0.2, 0.25][:C])
    code = "([config, weights, data, image, mixing]) => read(config, weights, data, [image], mixing)[0]"
    given = [model.config, plain(model.state_dict()), data, image.flatten().tolist()]
    pixels = normalise(image, **data)
    logits, expected = model.forward_intermediates(pixels)
    x = model.layers[0].channel_mixing(expected["tokens"])  # without the token mixing of layer 0
    tables = js(code, [*given, [False, True]])
    assert_close(tables["logits"], model.output(model.layers[1](x)), 1e-4)
    assert_close(tables["layers.0.token_mixing"], expected["tokens"], 1e-5)
    assert_close(tables["layers.0.token_mixing.hidden"], expected["layers.0.token_mixing.hidden"], 1e-4)
    tables = js(code, [*given, [True, True]])
    for name, tensor in {**expected, "patches": model.patches(pixels), "logits": logits}.items():
        assert_close(tables[name], tensor, 1e-4)
    assert_close(tables["probabilities"], logits.softmax(1), 1e-5)
    check_influence(js, model, expected)


def check_influence(js, model, expected):
    """Compare the influence on every token in both layers, of the image that the engine read last, with torch's."""
    code = "([layer, n]) => Array.from({ length: n }, (_, t) => [...engine.influence(layer, t, n)])"
    for layer, before in ((0, "tokens"), (1, "layers.0.channel_mixing")):
        block = model.layers[layer].token_mixing
        normed = block.norm(expected[before])[0].T.detach()  # [n_channel, n_tokens]
        J = torch.autograd.functional.jacobian(lambda z, block=block: block.fc2(block.gelu(block.fc1(z))), normed)
        sizes = J.diagonal(dim1=0, dim2=2).abs().mean(dim=-1)  # [t, s]
        assert_close(js(code, [layer, model.n_tokens]), sizes, 1e-5)


CREDIT = """([config, weights, data, image]) => {
  const [tables] = read(config, weights, data, [image]);
  const arrays = Object.fromEntries(Object.entries(tables).map(([name, table]) => [name, Float32Array.from(table)]));
  const units = [...Array(config.n_hidden_token).keys()];
  const of = (layer) => units.map((unit) => m.creditOf(config, (name) => weights[name], arrays, layer, unit));
  return Array.from({ length: config.n_layers }, (_, layer) => of(layer));
}"""


def credit(model, results, layer):
    """What each unit of token mixing adds to each logit, less the mean over the classes: [n_hidden, n_output]."""
    end, head = results[f"layers.{len(model.layers) - 1}.channel_mixing"], model.output
    axes = tuple(range(3 - len(head.norm.normalized_shape), 3))
    sigma = (end.var(dim=axes, unbiased=False, keepdim=True) + head.norm.eps).sqrt()
    hidden = results[f"layers.{layer}.token_mixing.hidden"][0].T  # [n_hidden, n_channel]
    part = (
        model.layers[layer].token_mixing.fc2.weight.T[:, :, None] * hidden[:, None]
    )  # [n_hidden, n_tokens, n_channel]
    part = (part - part.mean(dim=axes, keepdim=True)) / sigma * head.norm.weight
    logits = part.mean(dim=1) @ head.linear.weight.T
    return logits - logits.mean(dim=1, keepdim=True)


@pytest.mark.parametrize("norm", ["channels", "tokens_channels"])
def test_what_a_unit_adds_is_what_torch_says(js, norm, small_model):
    model = small_model(**SIZES["even"], norm=norm, n_layers=2)
    C, H, W = model.image_shape
    image = torch.arange(C * H * W, dtype=torch.uint8).view(1, C, H, W).mul(5)
    data = dict(mean=[0.25] * C, std=[0.5] * C)
    with torch.no_grad():
        _, results = model.forward_intermediates(normalise(image, data["mean"], data["std"]))
        expected = torch.stack([credit(model, results, layer) for layer in range(2)])
    assert expected.abs().max() > 0.01
    weights = plain(model.state_dict())
    assert_close(js(CREDIT, [model.config, weights, data, image.flatten().tolist()]), expected, 1e-5)


def test_as_many_layers_as_the_engine_takes(js, small_model):
    """The switches of their token mixing are the bits of one number, and a layer more would have no place."""
    model = small_model(n_layers=MOST_LAYERS)
    image, mixing = torch.randint(0, 256, (1, 1, 4, 4), dtype=torch.uint8), [True] * MOST_LAYERS
    mixing[0] = mixing[-1] = False
    x = model.per_patch(model.patches(image / 255))
    for layer, on in zip(model.layers, mixing, strict=True):
        x = layer(x) if on else layer.channel_mixing(x)
    given = [model.config, plain(model.state_dict()), image.flatten().tolist(), mixing]
    code = "([config, weights, image, mixing]) => read(config, weights, { mean: [0], std: [1] }, [image], mixing)[0]"
    assert_close(js(code, given)["logits"], model.output(x), 1e-4)
    refused = "(config) => { try { engine.configure(config, 1) } catch ({ message }) { return message } }"
    assert "the model is too large" in js(refused, {**model.config, "n_layers": MOST_LAYERS + 1})


def compare(page, path, images, n_whole):
    """Compare the model in a page with torch's on images [n, 1, H, W], and for some of them every step."""
    page.evaluate(IMPORT)
    model, about = load_checkpoint(path)
    logits, expected = model.forward_intermediates((images.float() / 255 - about["mean"][0]) / about["std"][0])
    rows = images.flatten(1).tolist()
    assert_close(page.evaluate(f"(images) => ({READ_STATE})(images).map(({{ logits }}) => logits)", rows), logits, 1e-4)
    for i, results in enumerate(page.evaluate(READ_STATE, rows[:n_whole])):
        for name, tensor in expected.items():
            assert_close(results[name], tensor[i], 1e-4)


def test_the_digits_model_is_that_of_torch(tab, tmp_path, digits):
    page = tab.open(write_page(tmp_path / "page.html", digits))
    compare(page, shipped_weights("digits-1"), load_data("digits").test.images[:200], 3)


def test_the_mnist_model_is_that_of_torch(tab, tmp_path, mnist):
    figure = MixerFlow(shipped_weights("mnist"), mnist.images[:2])
    compare(tab.open(write_page(tmp_path / "page.html", figure)), shipped_weights("mnist"), mnist.images[:200], 3)


# ------------------------------------------------------------------------------------------------- the traits


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(images=torch.zeros(2, 1, 4, 4)), "must be uint8"),
        (dict(images=torch.zeros(2, 1, 8, 8, dtype=torch.uint8)), r"uint8 \[n, 1, 4, 4\]"),
        (dict(images=torch.zeros(0, 1, 4, 4, dtype=torch.uint8)), "0 images; choose from 1 to 40"),
        (dict(labels=[1]), "1 labels for 2 images"),
        (dict(labels=[1, 3]), "a label is 3; choose from 0 to 2"),
        (dict(model=dict(n_image_channel=3)), "3 image channels"),
        (dict(model=dict(n_layers=33)), "has 33 layers; a page takes up to 32"),
        (dict(model=dict(n_channel=600, n_hidden=600)), "parameters; a page takes up to 500,000"),
        (dict(about={**ABOUT, "std": None}), "does not say its std"),
        (dict(about={**ABOUT, "class_names": ["one"]}), "names 1 classes, but its model has 3 outputs"),
        (dict(about={**ABOUT, "shuffle": "global"}), "shuffled pixels"),
    ],
)
def test_what_cannot_be_shown_is_refused(tmp_path, changes, words, save):
    path = save(tmp_path, changes.get("about", ABOUT), **changes.get("model", {}))
    images = changes.get("images", torch.zeros(2, 1, 4, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match=words):
        MixerFlow(path, images, changes.get("labels"))


@pytest.mark.parametrize(
    ("trait", "value", "words"),
    [
        ("image", bytes(15), "image has 15 bytes; give 16"),
        ("example", 5, "example is 5; choose from -1 to 4"),
        ("layer", 2, "layer is 2; choose from 0 to 1"),
        ("token", -1, "token is -1; choose from 0 to 3"),
        ("mixing", [True], "mixing has 1 values; give 2"),
        ("order", [0, 1, 1, 3], r"order is \[0, 1, 1, 3\]; give each number from 0 to 3 once"),
    ],
)
def test_traits_accept_only_what_there_is(tmp_path, trait, value, words, small_figure):
    figure = small_figure(tmp_path)
    before = getattr(figure, trait)
    with pytest.raises(ValueError, match=words):
        setattr(figure, trait, value)
    assert getattr(figure, trait) == before


def test_the_kernel_has_the_probabilities_of_what_it_shows(digits):
    model, about = load_checkpoint(shipped_weights("digits-1"))
    images = load_data("digits").test.images

    def expected(image):
        return model((image[None].float() / 255 - about["mean"][0]) / about["std"][0]).softmax(1)[0]

    for example in (3, 0):
        digits.example = example
        assert digits.image == images[example].numpy().tobytes()
        assert_close(digits.probabilities, expected(images[example]), 1e-6)
        assert digits.predicted == str(expected(images[example]).argmax().item())
    digits.image = memoryview(images[30].numpy().tobytes())  # as it comes from a browser
    assert digits.example == -1
    assert_close(digits.probabilities, expected(images[30]), 1e-6)
    digits.mixing = [False, True, True]
    assert (torch.tensor(digits.probabilities) - expected(images[30])).abs().max() > 0.01
    digits.mixing, digits.order = [True] * 3, list(reversed(range(16)))
    rows = images[30].view(4, 2, 4, 2).flip(0, 2).reshape(1, 8, 8)  # the same patches, the last one first
    assert_close(digits.probabilities, expected(rows), 1e-6)
    digits.order, digits.example = list(range(16)), 0
    assert "the model says 0" in digits.still()[1]


# ------------------------------------------------------------------------------------------------- the page


@pytest.fixture
def page(tab, tmp_path, digits):
    """A page whose figure stands still and is unfolded."""
    tab.page.emulate_media(reduced_motion="reduce")
    page = tab.open(write_page(tmp_path / "page.html", digits))
    page.get_by_text("Look inside", exact=True).click()
    settle(page)
    return page


def get(page, trait):
    return page.evaluate(f"document.querySelector('.mixer-figure').model.get('{trait}')")


def put(page, trait, value):
    page.evaluate(f"document.querySelector('.mixer-figure').model.set('{trait}', {value})")
    settle(page)


def ink(page):
    """The grey values on the board."""
    model = "document.querySelector('.mixer-figure').model"
    return page.evaluate(f"Array.from({{ length: 64 }}, (_, i) => {model}.get('image').getUint8(i))")


def pictures(page):
    """All canvases of the page, each as one string."""
    return page.locator("canvas").evaluate_all("all => all.map((canvas) => canvas.toDataURL())")


def pixels_of(canvas):
    """The pixels of a canvas [height, width, 4]."""
    width, height, data = canvas.evaluate(PIXELS)
    return np.array(data, dtype=np.uint8).reshape(height, width, 4)


def cells_of(canvas, rows, columns, is_square=False):
    """The pixels of every cell of a table [rows, height, columns, width, 4], which begins in the upper left corner."""
    pixels = pixels_of(canvas)
    lit = pixels[..., 3] > 0
    width = 1 + int(np.flatnonzero(lit[4]).max())  # on the edge no frame stands there
    height = 1 + int(np.flatnonzero(lit[:, width // 2]).max())
    assert (height % rows, width % columns) == (0, 0)
    assert is_square or (pixels.shape[0] - height < rows and pixels.shape[1] - width < columns)
    return pixels[:height, :width].reshape(rows, height // rows, columns, width // columns, 4)


def status(page):
    settle(page)
    return page.locator("p[role=status]").inner_text()


def stroke(page, *points):
    """Draw with the mouse through points [x, y], in shares of the board."""
    box = page.locator(".mx-board").bounding_box()
    first, *rest = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*first)
    page.mouse.down()
    for point in rest:
        page.mouse.move(*point, steps=5)
    page.mouse.up()
    page.mouse.move(box["x"] + 0.9 * box["width"], box["y"] + 0.5 * box["height"])  # no longer drawing
    settle(page)


def test_the_page_starts_with_what_the_kernel_computed(page, digits):
    page.locator("p[role=status]").wait_for()
    assert_close(get(page, "probabilities"), torch.tensor(digits.probabilities), 1e-5)
    assert status(page).startswith(f"The model says {digits.predicted} with {100 * max(digits.probabilities):.1f} %.")
    assert page.get_by_text(f"The model says: {digits.predicted}", exact=True).is_visible()
    assert page.locator(".mx-bars li").all_inner_texts()[0].split() == [
        "0",
        f"{100 * digits.probabilities[0]:.1f}",
        "%",
    ]


def test_the_mouse_draws(page):
    page.get_by_role("button", name="Clear").click()
    settle(page)
    assert page.get_by_text("Nothing is drawn yet", exact=True).is_visible()
    assert "The model says" not in page.locator(".mx").inner_text()
    assert not any(page.locator(".mx-bars span:last-child").all_inner_texts())
    empty = get(page, "probabilities")
    assert ink(page) == [0] * 64
    assert get(page, "example") == -1
    stroke(page, (0.4375, 0.2), (0.4375, 0.8))
    image = np.array(ink(page)).reshape(8, 8)
    assert image[2:6, 3].min() == 255  # the column under the stroke
    assert image[:, 2].max() < 255  # its neighbour is softer
    assert image[:, 5:].max() == 0
    assert get(page, "probabilities") != empty


def test_a_seven_that_was_drawn_is_a_seven(tab, tmp_path):
    figure = MixerFlow(shipped_weights("mnist"), torch.zeros(1, 1, 28, 28, dtype=torch.uint8))
    page = tab.open(write_page(tmp_path / "page.html", figure))
    stroke(page, (0.28, 0.25), (0.72, 0.25), (0.45, 0.8))
    assert status(page).startswith("The model says 7 with")


def test_the_opening_draws_the_first_image_and_the_first_stroke_clears_it(tab, tmp_path, digits):
    page = tab.page
    page.add_init_script(CLOCK)
    tab.open(write_page(tmp_path / "page.html", digits))
    seen = []
    for what in (".mx-best", ".mx p[role=status]:not(:empty)"):  # in the middle, when it is whole
        seen.append((page.locator(".mx-bars").inner_text(), pictures(page)[:3]))
        page.wait_for_function("(what) => (now += 50) && document.querySelector(what)", arg=what)
        settle(page)
    seen.append((page.locator(".mx-bars").inner_text(), pictures(page)[:3]))
    assert get(page, "example") == 0  # the image itself was there all the time
    for before, after in pairwise(seen):
        assert before[0] != after[0]
        assert all(one != other for one, other in zip(before[1], after[1], strict=True))
    assert status(page).startswith(f"The model says {digits.predicted} with")
    stroke(page, (0.4375, 0.2), (0.4375, 0.8))
    assert np.array(ink(page)).reshape(8, 8)[:, [0, 1, 5, 6, 7]].max() == 0
    page.get_by_role("button", name="Undo").click()
    settle(page)
    assert bytes(ink(page)) == digits._stored(0)
    assert get(page, "example") == 0


def test_the_first_key_that_draws_clears_the_opening(page):
    page.locator(".mx-board").press("ArrowUp")
    assert max(ink(page)) > 0
    page.locator(".mx-board").press("Enter")
    assert ink(page).count(255) == 1
    page.locator(".mx-board").press("ArrowUp")
    assert ink(page).count(255) == 2


def test_undo_takes_back_one_stroke_after_another(page):
    undo = page.get_by_role("button", name="Undo")
    assert undo.get_attribute("aria-disabled") == "true"
    images = [ink(page)]
    for x in (0.3, 0.6):
        stroke(page, (x, 0.2), (x, 0.8))
        images.append(ink(page))
    page.get_by_role("button", name="Clear").click()
    assert undo.get_attribute("aria-disabled") == "false"
    for image in reversed(images):
        undo.click()
        settle(page)
        assert ink(page) == image
    assert get(page, "example") == 0
    assert undo.get_attribute("aria-disabled") == "true"


def test_undo_gives_back_a_drawing_that_a_stored_image_replaced(page):
    stroke(page, (0.3, 0.2), (0.3, 0.8))
    drawn = ink(page)
    page.locator(".mx-gallery label").nth(2).click()
    settle(page)
    assert ink(page) != drawn
    page.get_by_role("button", name="Undo").click()
    settle(page)
    assert ink(page) == drawn and get(page, "example") == -1


def test_another_finger_does_not_end_a_stroke(page):
    board = page.locator(".mx-board")
    box = board.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"]
    page.mouse.move(x, y + 0.2 * box["height"])
    page.mouse.down()
    lost = "(canvas) => canvas.dispatchEvent(new PointerEvent('lostpointercapture', { bubbles: true }))"
    board.locator("canvas").evaluate(lost)  # of a finger that the canvas had
    page.mouse.move(x, y + 0.8 * box["height"], steps=4)
    page.mouse.up()
    settle(page)
    assert sum(np.array(ink(page)).reshape(8, 8).max(axis=1) > 0) >= 5


def test_keys_of_the_browser_are_left_to_it(page):
    before = ink(page)
    prevented = page.locator(".mx-board").evaluate("""(board) => ["altKey", "ctrlKey", "metaKey"].map((held) => {
      const event = new KeyboardEvent("keydown", { key: "ArrowLeft", [held]: true, bubbles: true, cancelable: true });
      board.dispatchEvent(event);
      return event.defaultPrevented;
    })""")
    assert prevented == [False] * 3 and ink(page) == before


def test_what_is_folded_is_not_drawn(page):
    page.get_by_text("Look inside", exact=True).click()
    before = pictures(page)
    page.get_by_role("button", name="Clear").click()
    settle(page)
    changed = [old != new for old, new in zip(before, pictures(page), strict=True)]
    assert changed == [True] * 3 + [False] * (len(changed) - 3)  # the board, what the model gets, and its last table


def test_the_keys_draw(page):
    page.get_by_role("button", name="Clear").click()
    page.locator(".mx-board").focus()
    page.keyboard.press("ArrowUp")
    assert ink(page) == [0] * 64  # the pen is up
    before = get(page, "probabilities")
    page.keyboard.press("Space")
    for _ in range(2):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")  # the pen is up again
    settle(page)
    image = np.array(ink(page)).reshape(8, 8)
    assert (image[:, 4] == 255).tolist() == [False] * 3 + [True] * 3 + [False] * 2
    assert get(page, "probabilities") != before


def test_a_finger_draws_on_a_narrow_screen(browser, tmp_path, digits):
    tab = Tab(browser, viewport={"width": 390, "height": 800}, has_touch=True)
    page = tab.open(write_page(tmp_path / "page.html", digits))
    page.locator(".mx-board").scroll_into_view_if_needed()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    before, scrolled = ink(page), page.evaluate("scrollY")
    box = page.locator(".mx-board").bounding_box()
    touch = page.context.new_cdp_session(page)
    for kind, y in (("touchStart", 0.2), ("touchMove", 0.5), ("touchMove", 0.8), ("touchEnd", None)):
        points = [] if y is None else [{"x": box["x"] + 0.9 * box["width"], "y": box["y"] + y * box["height"]}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    settle(page)
    after = np.array(ink(page)).reshape(8, 8)
    assert after[2:6, 7].min() > np.array(before).reshape(8, 8)[2:6, 7].max()
    assert page.evaluate("scrollY") == scrolled
    assert tab.problems == []
    page.close()


def test_a_stored_image_is_chosen_with_the_keys(page, digits):
    first = page.get_by_role("radio", name="stored image 0, of class 0")
    assert first.is_checked()
    first.press("ArrowRight")
    settle(page)
    assert get(page, "example") == 1
    assert bytes(ink(page)) == digits._stored(1)
    stroke(page, (0.5, 0.5), (0.5, 0.9))
    assert get(page, "example") == -1
    assert page.locator("input[type=radio]:checked").count() == 0


def test_traits_that_are_set_from_outside_are_shown(page, digits):
    put(page, "example", 4)
    assert bytes(ink(page)) == digits._stored(4)
    put(page, "image", "new DataView(new ArrayBuffer(64))")
    assert get(page, "example") == -1
    put(page, "layer", 2)
    put(page, "token", 5)
    assert "In layer 2, token 5 is mixed most from" in status(page)


def test_without_token_mixing_the_answer_is_another(page):
    before, drawn = get(page, "probabilities"), pictures(page)
    page.get_by_role("checkbox", name="token mixing of layer 0").press("Space")
    settle(page)
    assert get(page, "mixing") == [False, True, True]
    assert get(page, "probabilities") != before
    assert "Token mixing is off in layer 0." in status(page)
    assert page.get_by_text("Inside layer 0, its token mixing off").is_visible()
    assert "Influence:" not in page.locator(".mx-look").inner_text()
    hidden = page.get_by_role("img", name="Token mixing: hidden: 48 channels × 64 hidden units, off.")
    assert pixels_of(hidden).max() == 0
    assert page.get_by_text("off: nothing added").is_visible()
    assert pictures(page) != drawn
    page.get_by_role("checkbox", name="token mixing of layer 0").press("Space")
    settle(page)
    assert get(page, "probabilities") == before
    assert pictures(page) == drawn


def test_all_token_mixing_is_switched_off_beside_the_answer_before(page, digits):
    whole = get(page, "probabilities")
    ghosts = page.locator(".mx-before")
    assert [ghost.is_visible() for ghost in ghosts.all()] == [False] * 10
    box = page.get_by_role("checkbox", name="Token mixing of all layers")
    box.press("Space")
    assert f"says {digits.predicted} with {100 * max(whole):.1f} %." in status(page)
    assert get(page, "mixing") == [False] * 3
    assert get(page, "probabilities") != whole
    widths = ghosts.evaluate_all("all => all.map((one) => parseFloat(one.style.width))")
    assert_close(widths, 100 * torch.tensor(whole), 1e-3)
    page.get_by_role("checkbox", name="token mixing of layer 1").press("Space")
    settle(page)
    assert box.evaluate("(box) => box.indeterminate")
    box.press("Space")
    settle(page)
    assert get(page, "probabilities") == whole
    assert not ghosts.first.is_visible()


def test_shuffled_patches_are_what_python_computes(page, digits):
    seen = page.get_by_role("img", name="The image with its patches shuffled")
    assert not seen.is_visible()
    page.get_by_role("checkbox", name="Shuffle the patches").press("Space")
    settle(page)
    assert seen.is_visible()
    order = get(page, "order")
    assert sorted(order) == list(range(16))
    assert all(patch != place for place, patch in enumerate(order))
    digits.order = order
    assert_close(get(page, "probabilities"), torch.tensor(digits.probabilities), 1e-5)
    digits.order = list(range(16))
    page.get_by_role("checkbox", name="Shuffle the patches").press("Space")
    settle(page)
    assert get(page, "order") == digits.order
    assert_close(get(page, "probabilities"), torch.tensor(digits.probabilities), 1e-5)


@pytest.mark.parametrize("scale", [1, 1.25, 2])
def test_every_cell_has_as_many_pixels_as_the_others(browser, tmp_path, digits, scale):
    tab = Tab(browser, device_scale_factor=scale, reduced_motion="reduce")
    page = tab.open(write_page(tmp_path / "page.html", digits))
    page.get_by_text("Look inside", exact=True).click()
    settle(page)
    for name, rows, columns in (
        ("After layer 2", 16, 48),
        ("The tokens: a row", 16, 48),
        ("Channel mixing: hidden", 16, 64),
    ):
        cells = cells_of(page.get_by_role("img", name=name), rows, columns)
        assert (cells == cells[:, :1, :, :1])[:9, :, 2:].all(), name  # without the frames of token 10 and channel 0
    assert page.locator(".mx-cells canvas").first.evaluate("(c) => c.width / c.clientWidth") == pytest.approx(
        scale, 0.01
    )
    assert tab.problems == []
    page.close()


def test_tables_fold_into_maps_and_patches_into_the_image(page):
    patches = page.get_by_role("img", name="The patches")
    before = pictures(page)
    fold = page.get_by_role("checkbox", name="Fold the tables into maps")
    fold.press("Space")
    settle(page)
    changed = [old != new for old, new in zip(before, pictures(page), strict=True)]
    assert sum(changed) == 10  # all but the board, the gallery, the influence, and hidden units of channels
    cells = cells_of(patches, 8, 8, is_square=True)  # the pixels of the image
    image, lit = np.array(ink(page)).reshape(8, 8), cells[:, cells.shape[1] // 2, :, cells.shape[3] // 2, 0]
    assert np.abs(lit.astype(int) - image)[:4].max() <= 1  # above the frame of token 10
    fold.press("Space")
    settle(page)
    assert pictures(page) == before


def test_the_pixels_move_where_motion_is_allowed(tab, tmp_path, digits):
    page = tab.page
    page.add_init_script(CLOCK)
    tab.open(write_page(tmp_path / "page.html", digits))
    page.get_by_text("Look inside", exact=True).click()
    page.get_by_role("button", name="Clear").click()
    page.get_by_role("checkbox", name="Fold the tables into maps").press("Space")
    settle(page)
    seen = [pictures(page)[2]]
    for _ in range(3):
        page.evaluate("now += 350")
        settle(page)
        seen.append(pictures(page)[2])
    assert len({*seen[:3]}) == 3
    assert seen[2] == seen[3]


def test_what_was_added_and_one_scale(page):
    name, reading = "Added by channel mixing", page.locator(".mx-inside .mx-reading")
    came_out = reading.inner_text()
    page.get_by_label("Show").select_option("what was added")
    settle(page)
    assert page.get_by_role("img", name=name).is_visible()
    assert reading.inner_text() != came_out
    page.get_by_label("Show").select_option("what came out")
    limits = "all => all.map((one) => /±\\s([\\d.]+)/.exec(one.textContent)?.[1])"
    notes = page.locator(".mx-answer .mx-cells + .mx-note, .mx-layer .mx-panel:nth-child(odd):not(.mx-look) .mx-note")
    settle(page)
    assert len({*notes.evaluate_all(limits)}) > 1
    page.get_by_role("checkbox", name="One colour scale for all layers").press("Space")
    settle(page)
    assert len({*notes.evaluate_all(limits)}) == 1
    assert page.get_by_text("all layers have one scale").is_visible()


def test_the_pointer_links_patch_row_and_map_and_reads_the_number(page):
    page.evaluate(IMPORT)
    tables = page.evaluate(READ_STATE, [ink(page)])[0]
    value = tables["layers.0.channel_mixing"][3 * 48 + 2]
    reading = page.locator(".mx-inside .mx-reading")
    table = page.get_by_role("img", name="After channel mixing")
    cell = table.evaluate("(c) => [Math.floor(c.clientWidth / 48), Math.floor(c.clientHeight / 16)]")
    place = {"x": 2.5 * cell[0], "y": 3.5 * cell[1]}
    before = pictures(page)
    table.hover(position=place)
    settle(page)
    number = f"{value:.2f}".replace("-", "−")
    assert reading.inner_text() == f"After channel mixing: token 3 (row 0, column 3), channel 2: {number}"
    frame, board = page.locator(".mx-patch").bounding_box(), page.locator(".mx-board").bounding_box()
    assert frame["x"] - board["x"] == pytest.approx(0.75 * board["width"], abs=1)
    assert frame["y"] == pytest.approx(board["y"], abs=1)
    assert sum(old != new for old, new in zip(before, pictures(page), strict=True)) >= 8
    page.mouse.move(0, 0)
    settle(page)
    assert pictures(page) == before
    table.click(position=place)
    settle(page)  # the sliders follow in the next frame
    page.get_by_role("slider", name="Channel").press("ArrowRight")
    settle(page)
    assert get(page, "token") == 3
    assert reading.inner_text().startswith("Layer 0: token 3 (row 0, column 3), channel 3: ")
    page.locator(".mx-board").hover(position={"x": 5, "y": 5})
    settle(page)
    assert reading.inner_text() == "Patch: token 0 (row 0, column 0)"


def test_layer_and_token_are_chosen(page):
    drawn = pictures(page)
    page.get_by_role("button", name="Look inside layer 1").press("Enter")
    settle(page)
    assert page.get_by_text("Inside layer 1", exact=True).is_visible()
    assert page.get_by_role("button", name="Look inside layer 1").get_attribute("aria-pressed") == "true"
    assert pictures(page) != drawn
    page.get_by_role("slider", name="Token").press("Home")
    assert "token 0 is mixed most" in status(page)
    page.get_by_role("img", name="After token mixing").click(position={"x": 5, "y": 185})
    assert "token 15 is mixed most" in status(page)
    page.locator(".mx-look canvas").click(position={"x": 5, "y": 5})
    assert "token 0 is mixed most" in status(page)


def test_a_unit_is_chosen_and_its_numbers_are_those_of_torch(page, digits):
    """Heading, numbers and sentence of the unit; a layer whose token mixing is off adds nothing."""
    model, about = load_checkpoint(shipped_weights("digits-1"))
    image = torch.tensor(ink(page), dtype=torch.uint8).view(1, 1, 8, 8)
    with torch.no_grad():
        _, results = model.forward_intermediates(normalise(image, about["mean"], about["std"]))
    part = page.locator(".mx-credit")
    slider = page.get_by_role("slider", name="Unit")
    page.get_by_role("button", name="Look inside layer 2").click()
    settle(page)
    for key, unit in (("End", 63), ("ArrowLeft", 62), ("Home", 0)):
        drawn = pictures(page)
        slider.press(key)
        settle(page)
        expected = credit(model, results, 2)[unit].detach()
        shown = part.locator("li span:last-child").all_inner_texts()
        assert_close([float(number.replace("−", "-")) for number in shown], expected, 0.00051)
        assert part.get_by_text(f"What unit {unit} of token mixing 2 adds", exact=False).is_visible()
        assert f"Most to {expected.argmax()}," in part.inner_text()
        assert sum(old != new for old, new in zip(drawn, pictures(page), strict=True)) == 2  # its two maps
    put(page, "mixing", "[true, true, false]")
    settle(page)
    assert set(part.locator("li span:last-child").all_inner_texts()) == {"0.000"}
    assert "off in this layer" in part.inner_text()


def test_every_picture_has_its_words(page):
    settle(page)
    seen = page.locator("canvas[role=img]:not([aria-hidden=true])")
    words = seen.evaluate_all("all => all.map((one) => one.getAttribute('aria-label'))")
    assert len(words) == 13
    assert all(len(word) > 20 for word in words)
    assert page.locator("canvas:not([role=img]):not([aria-hidden=true])").count() == 0


def test_the_theme_changes_tables_and_not_the_board(page):
    settle(page)
    light = pictures(page)
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    settle(page)
    dark = pictures(page)
    assert dark[0] == light[0]
    labels = page.locator("canvas").evaluate_all("all => all.map((one) => one.getAttribute('aria-label') ?? '')")
    tables = [i for i, label in enumerate(labels) if label.startswith(("After", "The tokens", "The mean"))]
    assert len(tables) == 5
    assert all(dark[i] != light[i] for i in tables)


def test_names_of_classes_are_text(tab, tmp_path, small_figure):
    page = tab.open(write_page(tmp_path / "page.html", small_figure(tmp_path)))
    page.get_by_role("radio").nth(2).check()
    settle(page)
    assert HOSTILE in page.locator(".mx-bars").inner_text()
    assert page.locator("img[src=x]").count() == 0


@pytest.mark.parametrize(
    ("trait", "value", "words"),
    [
        ("weights", {"base64": "AAAA"}, "its weights are damaged or incomplete"),
        ("images", {"base64": "AAAA"}, "its stored images are damaged or incomplete"),
        ("class_names", ["one"], "its class names are damaged or incomplete"),
        ("engine", {"base64": "AAAA"}, "its engine is damaged or incomplete"),
    ],
)
def test_a_damaged_figure_says_so(tab, tmp_path, monkeypatch, trait, value, words, small_figure):
    figure = small_figure(tmp_path)
    damaged = {**figure.state(), trait: value}
    monkeypatch.setattr(MixerFlow, "state", lambda self: damaged)
    page = tab.open(write_page(tmp_path / "page.html", figure))
    assert page.get_by_role("alert").inner_text() == f"This figure cannot come to life: {words}"


@pytest.mark.parametrize("script", ["delete window.WebAssembly", "WebAssembly.validate = () => false"])
def test_a_browser_without_simd_is_told(tab, tmp_path, script, small_figure):
    tab.page.add_init_script(script)
    page = tab.open(write_page(tmp_path / "page.html", small_figure(tmp_path)))
    assert "this browser has no WebAssembly with SIMD; one of 2023" in page.get_by_role("alert").inner_text()


def test_the_still_picture_stands_until_the_engine_has_started(tab, tmp_path, small_figure):
    tab.page.add_init_script(HELD)
    page = tab.page
    page.goto(write_page(tmp_path / "page.html", small_figure(tmp_path)).as_uri())
    page.wait_for_function("'go' in window")
    page.evaluate("document.documentElement.dataset.theme = 'dark'")
    settle(page)
    assert page.locator(".mixer-still").is_visible()
    assert page.locator(".mx").count() == 0
    page.evaluate("go()")
    page.locator("p[role=status]").get_by_text("The model says").wait_for()
    assert page.locator(".mixer-still").is_hidden()
    assert page.get_by_role("alert").count() == 0


@pytest.mark.parametrize("name", ["n_layers", "n_channel", "n_hidden_token", "n_hidden_channel", "n_image_channel"])
def test_a_size_that_its_weights_do_not_have_is_named(tab, tmp_path, monkeypatch, name, small_figure):
    """A loop up to such a size would hardly end."""
    figure = small_figure(tmp_path)
    damaged = {**figure.state(), "config": {**figure.config, name: 1e308}}
    monkeypatch.setattr(MixerFlow, "state", lambda self: damaged)
    page = tab.open(write_page(tmp_path / "page.html", figure))
    assert "its sizes are not those of its weights" in page.get_by_role("alert").inner_text()


def test_a_damaged_image_says_so(page):
    settle(page)
    put(page, "image", "new DataView(new ArrayBuffer(3))")
    assert "its image is damaged or incomplete" in page.get_by_role("alert").inner_text()


def enlarged_digits():
    """The test digits of scikit-learn as the introduction shows them, [n, 1, 28, 28]."""
    images = load_data("digits").test.images.float()
    return F.pad(F.interpolate(images, size=22, mode="bicubic", antialias=True).clamp(0, 255), (3, 3, 3, 3)).byte()


def test_the_mixer_of_the_introduction_computes_as_torch_does(tab, book):
    """In the built page: the logits of 200 images, and every step of three, within 1e-4."""
    page = tab.open(book / "book/intro.html")
    compare(page, shipped_weights("mnist"), enlarged_digits()[:200], 3)
