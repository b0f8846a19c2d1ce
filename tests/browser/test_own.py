"""The reader's own images in the laboratory: cut as Python cuts them, trained on, read, and never sent anywhere."""

import base64
import json

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin
from sklearn.datasets import load_sample_images

from _extensions.chromium import Tab, settle, write_page
from _extensions.firefox import started as firefox_started
from mixer import Split, evaluate, load_checkpoint, load_data
from mixer.checkpoint import classify
from mixer.data import DataSet, mean_and_std
from mixer.picture import read_image
from mixer.widgets import TrainingLab

MODEL = "document.querySelector('.mixer-figure').model"
TRAITS = ("own", "settings", "running", "step", "history", "runs", "trained")
STANDS = f"!{MODEL}.get('running') && document.querySelector('[role=status]').innerText.match(/%s/)"
WEIGHTS = f"Array.from(new Uint8Array({MODEL}.get('weights').buffer))"
NO_WORKER = "window.Worker = class { constructor() { throw new Error('none'); } };"
# As where a page forbids workers: an error comes, and nothing else.
DEAD_WORKER = (
    "window.Worker = class { postMessage() { setTimeout(() => this.onerror({ message: 'no' })); } terminate() {} };"
)
# The pixels of all small pictures, [n, size, size, 4].
THUMBS = """[...document.querySelectorAll(".mx-thumbs canvas")].map((canvas) =>
  Array.from(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data))"""
# Files by name, from base64, chosen in the n-th field for pictures, or dropped on the n-th class.
GIVE = """([n, files, isDropped]) => {
  const transfer = new DataTransfer();
  for (const [name, text] of Object.entries(files))
    transfer.items.add(new File([Uint8Array.from(atob(text), (byte) => byte.charCodeAt(0))], name));
  const input = document.querySelectorAll(".mx-class")[n].querySelector("input[type=file]");
  if (isDropped)
    return input.closest("fieldset").dispatchEvent(
      new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true }));
  input.files = transfer.files;
  input.dispatchEvent(new Event("change"));
}"""
SMALL = dict(n_layers=1, n_channel=8, n_hidden=8)


@pytest.fixture(scope="session")
def digits():
    return load_data("digits")


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Two classes of real pictures in many kinds of files: {class: [path, …]}, eight of each."""
    folder = tmp_path_factory.mktemp("pictures")
    found = {}
    for name, photo in zip(("temple", "flower é猫"), load_sample_images().images, strict=True):
        image = Image.fromarray(photo)  # 427×640
        turned = Image.Exif()
        turned[274] = 6
        clear = np.dstack([photo, np.indices(photo.shape[:2]).sum(0) % 256]).astype(np.uint8)
        deep = (np.asarray(image.convert("L")).astype(np.uint16) * 257)[:, 100:300]
        paths = [folder / f"{name}-{i}" for i in range(8)]
        paths = [
            path.with_suffix(end) for path, end in zip(paths, (".jpg", *[".png"] * 5, ".jpg", ".png"), strict=True)
        ]
        image.save(paths[0], quality=90)  # landscape
        gamma = PngImagePlugin.PngInfo()
        gamma.add(b"gAMA", (100_000).to_bytes(4))
        image.crop((200, 0, 411, 427)).save(paths[1], pnginfo=gamma)  # portrait
        Image.fromarray(clear).save(paths[2])  # transparent by degrees
        image.convert("L").save(paths[3])
        image.crop((0, 0, 9, 5)).save(paths[4])  # smaller than what it is cut to
        image.quantize(64).save(paths[5])
        image.save(paths[6], exif=turned)
        Image.fromarray(deep).save(paths[7])
        found[name] = paths
    return found


def opened(tab, tmp_path, lab):
    page = tab.open(write_page(tmp_path / "page.html", lab))
    page.get_by_text("Your own images").click()
    page.wait_for_selector(".mx-own .mx-board")
    return page


def choose(page, pictures, size=16, colours=3):
    """Name the classes and choose their pictures."""
    page.get_by_label("Cut to").select_option(str(size))
    page.get_by_label("Colours").select_option(str(colours))
    for i, (name, paths) in enumerate(pictures.items()):
        page.get_by_label("Name").nth(i).fill(name)
        page.get_by_label(f"Pictures of {name}").set_input_files(paths)
    wait_for_images(page, *map(len, pictures.values()))


def wait_for_images(page, *counts):
    words = [f"{n} image{'s' if n != 1 else ''}" for n in counts]
    shown = "[...document.querySelectorAll('.mx-class output:not(.mx-wrong)')].map((output) => output.innerText)"
    page.wait_for_function(f"{shown}.join() === {json.dumps(','.join(words))}")


def train(page, n_epochs=None):
    page.get_by_role("button", name="Train on these").click()
    if n_epochs:
        page.get_by_label("Epochs", exact=True).fill(str(n_epochs))
        page.get_by_label("Epochs", exact=True).press("Enter")
        page.get_by_role("button", name="Reset").click()
        page.get_by_role("button", name="Train", exact=True).click()
    page.wait_for_function(STANDS % "Finished")


def line(page, points, board=".mx-own .mx-board"):
    """Draw through points, given as shares of the board."""
    board = page.locator(board)
    board.scroll_into_view_if_needed()
    box = board.bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=4)
    page.mouse.up()


def draw_examples(page, n=4):
    """n lines from left to right, and n from top to bottom, in the two classes."""
    for i in range(n):
        at = 0.3 + 0.4 * i / n
        for k, points in enumerate(([(0.1, at), (0.9, at)], [(at, 0.1), (at, 0.9)])):
            line(page, points)
            page.locator(".mx-targets button").nth(k).click()
    wait_for_images(page, n, n)


def sent(page):
    """All that a page sets of its model that a kernel would hear, as it hears it."""
    traits = page.evaluate(f"Object.fromEntries({json.dumps(TRAITS)}.map((name) => [name, {MODEL}.get(name)]))")
    return traits | {"weights": bytes(page.evaluate(WEIGHTS))}


def data_set(pictures, size, shuffle, patch_size):
    """The data set that Python makes of the same files: of each class the last tests, the one before is held out."""
    splits = []
    for chosen in (slice(6), slice(6, 7), slice(7, 8)):
        files = [(label, path) for label, paths in enumerate(pictures.values()) for path in paths[chosen]]
        images = np.stack([read_image(path, (size, size), "white") for _, path in files])
        splits.append(Split(torch.from_numpy(images), torch.tensor([label for label, _ in files])))
    about = mean_and_std(splits[0].images)
    return DataSet("own", *splits, list(pictures), *about, (3, size, size)).shuffled(shuffle, patch_size)


@pytest.mark.parametrize(("size", "colours"), [(8, 1), (16, 3), (28, 3), (28, 1)])
def test_pictures_are_cut_as_python_cuts_them(tab, tmp_path, digits, pictures, size, colours):
    """Measured: no pixel differs, but for files of 16 bits, which browsers round in another way: 2 of 255."""
    page = opened(tab, tmp_path, TrainingLab(digits))
    choose(page, pictures, size, colours)
    shown = np.array(page.evaluate(THUMBS)).reshape(-1, size, size, 4)[..., :3].transpose(0, 3, 1, 2)
    files = [path for paths in pictures.values() for path in paths]
    for path, image in zip(files, shown, strict=True):
        expected = read_image(path, (size, size), "white", "L" if colours == 1 else "RGB")
        difference = np.abs(image - expected.astype(int)).max()
        is_deep = path.stem.endswith("7")
        allowed = 0 if path.suffix == ".png" and path.stem[-1] in "1345" else 1  # decoders of JPEG may round
        assert difference <= (3 if is_deep else allowed), path.name


def test_what_is_trained_is_what_python_makes_of_the_same_files(tab, tmp_path, digits, pictures):
    """Splits, standardisation, shuffled pixels, the model in a kernel, and the checkpoint: the loss is equal."""
    lab = TrainingLab(digits, **SMALL)
    page = opened(tab, tmp_path, lab)
    some = {name: [*paths[:7], paths[0]] for name, paths in pictures.items()}  # without the one of 16 bits
    choose(page, some, 28, 3)
    assert "16 images: 12 to train on, 2 for validation" in page.locator(".mx-own").inner_text()
    train(page, 3)
    page.get_by_label("Shuffled pixels").select_option("patches")
    page.get_by_role("button", name="Train", exact=True).click()
    page.wait_for_function(f"{STANDS % 'Finished'} && {MODEL}.get('settings').shuffle === 'patches'")
    lab.set_state(sent(page))
    data = data_set(some, 28, "patches", 7)
    assert lab.own["mean"] == pytest.approx(data.mean, abs=1.1e-6)
    assert lab.own["std"] == pytest.approx(data.std, abs=1.1e-6)
    found = evaluate(lab.model(), data, data.validation)
    assert found["loss"] == pytest.approx(lab.history[-1]["validation_loss"], rel=1e-4)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download checkpoint").click()
    path = tmp_path / "own.safetensors"
    download.value.save_as(path)
    model, about = load_checkpoint(path)
    assert about["class_names"] == list(pictures) and about["data_set"] == "own images"
    lab.save(tmp_path / "kernel.safetensors")
    kernel_model, kernel_about = load_checkpoint(tmp_path / "kernel.safetensors")
    kept = ("class_names", "mean", "std", "background", "shuffle", "data_set")
    assert all(about[name] == kernel_about[name] for name in kept)
    assert all((a == b).all() for a, b in zip(model.parameters(), kernel_model.parameters(), strict=True))
    clear = pictures["temple"][2]
    page.get_by_label("Or choose a picture").set_input_files(clear)
    page.wait_for_function("document.querySelector('.mx-answer').innerText.includes('%')")
    for name, share in classify(model, about, clear).items():
        assert f"{name}\n{share:.1%}".replace("%", " %") in page.locator(".mx-answer").inner_text()
    page.get_by_label("Open a checkpoint").set_input_files(path)
    page.wait_for_function("document.querySelector('[role=status]').innerText.includes('The weights are there')")


@pytest.mark.parametrize("script", ["", NO_WORKER])
def test_drawings_are_learned_and_read(browser, tmp_path, digits, script):
    """Also while the digits are still trained on."""
    tab = Tab(browser)
    tab.page.add_init_script(script)
    page = opened(tab, tmp_path, TrainingLab(digits, n_epochs=500))
    page.get_by_label("Name").nth(0).fill("lying")
    page.get_by_label("Name").nth(1).fill("standing")
    draw_examples(page)
    page.get_by_role("button", name="Train", exact=True).click()
    page.wait_for_function(f"{MODEL}.get('step') > 0")
    train(page)
    settings = page.evaluate(f"{MODEL}.get('settings')")
    assert (settings["n_train"], settings["affine"], settings["patch_size"]) == (4, 1, 2)
    assert page.evaluate(f"{MODEL}.get('history').at(-1).train_accuracy") == 1
    for name, points in {"lying": [(0.1, 0.45), (0.9, 0.45)], "standing": [(0.45, 0.1), (0.45, 0.9)]}.items():
        page.locator(".mx-parts").get_by_role("button", name="Clear").click()
        line(page, points, ".mx-parts .mx-board")
        page.wait_for_function(f"document.querySelector('.mx-answer').innerText.includes('says: {name}')")
    assert "Confusion matrix. 2 validation images" in page.locator(".mx-matrix canvas").get_attribute("aria-label")
    assert tab.problems == []
    page.close()


def test_everything_works_by_the_keyboard(tab, tmp_path, digits):
    page = tab.open(write_page(tmp_path / "page.html", TrainingLab(digits)))
    page.locator("summary").first.press("Enter")
    page.wait_for_selector(".mx-own .mx-board")
    for k in range(6):
        page.locator(".mx-own .mx-board").focus()
        for key in (" ", *["ArrowRight" if k % 2 else "ArrowDown"] * 3, " "):
            page.keyboard.press(key)
        for _ in range(3 + k % 2):  # past Clear and Undo, to the button of the class
            page.keyboard.press("Tab")
        page.keyboard.press("Enter")
    wait_for_images(page, 3, 3)
    page.get_by_role("button", name="Remove image 1 of Class 1").press("Enter")
    wait_for_images(page, 2, 3)
    assert page.evaluate("document.activeElement.ariaLabel") == "Remove image 1 of Class 1"
    assert "Class 1 has 2 images: each class needs at least 3, one to train on" in page.locator(".mx-own").inner_text()


def test_what_cannot_be_is_said_and_nothing_is_lost(tab, tmp_path, digits, pictures):
    page = opened(tab, tmp_path, TrainingLab(digits))
    own = page.locator(".mx-own")
    page.locator(".mx-targets button").first.click()
    assert "The board is empty: draw something first." in page.locator(".mx-drawing").inner_text()
    page.get_by_role("button", name="Train on these").click()
    assert "Class 1 has 0 images: each class needs at least 3" in own.inner_text()
    assert page.evaluate(f"{MODEL}.get('running')") is False
    (bad, plain) = (tmp_path / "bad.png", tmp_path / "plain.png")
    bad.write_bytes(pictures["temple"][1].read_bytes()[:2000])
    Image.fromarray(np.dstack([np.full((9, 9, 3), 255), np.indices((9, 9)).sum(0) * 10]).astype(np.uint8)).save(plain)
    page.get_by_label("Pictures of Class 1").set_input_files(
        [*pictures["temple"][:3], bad, plain, tmp_path / "page.html"]
    )
    page.wait_for_function("document.querySelector('.mx-class').innerText.includes('Left out: 3 of 6 files')")
    assert "bad.png cannot be used: it is no picture that this browser reads" in own.inner_text()
    page.get_by_label("Pictures of Class 1").set_input_files(plain)
    page.wait_for_function("document.querySelector('.mx-class').innerText.includes('it is one plain colour')")
    wait_for_images(page, 3, 0)
    page.get_by_role("button", name="Remove class Class 1").click()
    assert "There must be at least two classes." in own.inner_text()
    for _ in range(9):
        page.get_by_role("button", name="Add a class").click()
    assert "There can be at most 10 classes." in own.inner_text()
    for _ in range(8):
        page.get_by_role("button", name="Remove class").last.click()
    wait_for_images(page, 3, 0)
    for name, words in (("Class 2", "Two classes have the name Class 2"), (" ", "A class has no name yet")):
        page.get_by_label("Name").first.fill(name)
        assert words in own.inner_text()
    page.get_by_label("Name").first.fill("<b>temple</b>")
    line(page, [(0.2, 0.2), (0.8, 0.8)])
    page.get_by_label("Cut to").select_option("28")  # the drawing on the board is kept, too
    for i in range(3):
        line(page, [(0.2, 0.2), (0.8, 0.8)]) if i else None
        page.get_by_role("button", name="Add the drawing to Class 2").click()
    wait_for_images(page, 3, 3)
    train(page, 1)
    assert "<b>temple</b>" in page.locator(".mx-answer").inner_text()
    page.get_by_label("Or choose a picture").set_input_files(bad)
    page.wait_for_function("document.querySelector('.mx-parts .mx-draw').innerText.includes('bad.png cannot be used')")


def test_runs_of_other_images_are_no_runs_of_another_seed(tab, tmp_path, digits):
    """Other pictures, or another cut of them, leave every setting as it was."""
    page = opened(tab, tmp_path, TrainingLab(digits, **SMALL))
    draw_examples(page)
    for size in ("16", "28", None):
        if size:
            page.get_by_label("Cut to").select_option(size)
        train(page, 2)
        page.get_by_role("button", name="Keep this run").click()
    assert page.evaluate(f"{MODEL}.get('runs').map(({{ images }}) => images)") == [1, 2]
    assert page.locator(".mx-compare tbody th").nth(1).inner_text() == "own images, set 2"


def test_undo_gives_back_a_drawing_that_was_added(tab, tmp_path, digits):
    page = opened(tab, tmp_path, TrainingLab(digits, **SMALL))
    canvas = "document.querySelector('.mx-own .mx-board canvas').getContext('2d')"
    ink = f"Array.from({canvas}.getImageData(0, 0, 8, 8).data)"
    line(page, [(0.2, 0.2), (0.8, 0.8)])
    settle(page)
    drawn = page.evaluate(ink)
    page.locator(".mx-targets button").first.click()
    settle(page)
    assert page.evaluate(ink) != drawn
    page.get_by_label("Colours").select_option("3")
    page.locator(".mx-own").get_by_role("button", name="Undo").click()
    settle(page)
    assert page.evaluate(ink) == drawn


def test_pictures_are_cut_where_workers_are_forbidden(browser, tmp_path, digits, pictures):
    tab = Tab(browser)
    tab.page.add_init_script(DEAD_WORKER)
    page = opened(tab, tmp_path, TrainingLab(digits, **SMALL))
    choose(page, pictures)
    page.close()


def test_back_to_the_digits_with_their_settings_and_runs(tab, tmp_path, digits):
    page = opened(tab, tmp_path, TrainingLab(digits, n_epochs=2, lr=0.002, **SMALL))
    page.get_by_role("button", name="Train", exact=True).click()
    page.wait_for_function(STANDS % "Finished")
    page.get_by_role("button", name="Keep this run").click()
    before = page.evaluate(f"[{MODEL}.get('settings'), {MODEL}.get('runs'), {WEIGHTS}]")
    draw_examples(page)
    train(page, 2)
    page.get_by_role("button", name="Keep this run").click()
    assert page.evaluate(f"{MODEL}.get('runs').map(({{ settings }}) => settings.n_train)") == [4]
    line(page, [(0.2, 0.2), (0.8, 0.8)])
    page.locator(".mx-targets button").first.click()
    assert "They have changed since the training began." in page.locator(".mx-own").inner_text()
    page.get_by_role("button", name="Copy address").click()
    page.wait_for_function("document.querySelector('[role=status]').innerText.startsWith('No address')")
    page.get_by_role("button", name="Back to digits").click()
    settle(page)
    assert page.locator("[role=status]").first.inner_text() == "Epoch 0 of 2."
    assert page.evaluate(f"[{MODEL}.get('settings'), {MODEL}.get('runs')]") == before[:2]
    assert page.evaluate(f"[{WEIGHTS}.length, {MODEL}.get('history').length]") == [0, 0]
    page.get_by_role("button", name="Train", exact=True).click()
    page.wait_for_function(STANDS % "Finished")
    assert page.evaluate(WEIGHTS) == before[2]
    wait_for_images(page, 5, 4)


def test_no_image_leaves_the_page(tab, tmp_path, digits, pictures):
    lab = TrainingLab(digits, **SMALL)
    page = opened(tab, tmp_path, lab)
    page.evaluate(f"""() => {{
      const [model, names] = [{MODEL}, (window.names = new Set())];
      const set = model.set;
      model.set = (name, value) => names.add(name) && set(name, value);
    }}""")
    choose(page, pictures, 16, 3)
    train(page, 2)
    assert set(page.evaluate("[...window.names]")) == {*TRAITS, "weights"}
    own = page.evaluate(f"{MODEL}.get('own')")
    facts = {"shape", "class_names", "mean", "std", "data_set", "background", "n_train"}
    assert own.keys() == {"id", "set", "before", *facts} and len(json.dumps(own)) < 2000


def test_address_and_command_hold_no_images(tab, tmp_path, digits, pictures):
    from mixer.cli.options import Options

    page = opened(tab, tmp_path, TrainingLab(digits, **SMALL))
    choose(page, pictures, 16, 1)
    train(page, 1)
    code = page.locator(".mx-lab code")
    assert code.inner_text() == "train.py reads pictures in colour, so no command trains on yours in grey."
    page.get_by_role("button", name="Copy address").click()
    page.wait_for_function(
        "document.querySelector('[role=status]').innerText.includes('No address holds your own images')"
    )
    page.get_by_role("button", name="Copy command").click()
    page.wait_for_function("document.querySelector('[role=status]').innerText.startsWith('There is no command')")
    about = page.get_by_text("The command trains such a model with PyTorch")
    assert not about.is_visible()
    page.get_by_label("Colours").select_option("3")
    train(page, 1)
    assert code.inner_text() == "train.py turns and shifts digits alone, so no command trains in this way."
    page.get_by_label("Random turns and shifts").fill("0")
    page.get_by_label("Random turns and shifts").press("Enter")
    settle(page)
    assert about.is_visible()
    words = code.inner_text().split()
    given = dict(zip((word.removeprefix("--") for word in words[2::2]), words[3::2], strict=True))
    assert given.keys() <= vars(Options()).keys()
    assert (given["dataset"], given["image_size"], given["patch_size"]) == ("folder", "16", "4")
    page.evaluate("location.hash = '#elsewhere'")
    settle(page)
    assert page.evaluate(f"{MODEL}.get('own').n_train") == 12
    page.evaluate("location.hash = '#lab={\"n_layers\": 3}'")  # a link to an experiment on the digits
    page.wait_for_function(f"{MODEL}.get('settings').n_layers === 3 && {MODEL}.get('settings').n_train === 1294")
    settle(page)
    assert "These are the settings of the link" in page.locator("[role=status]").first.inner_text()
    assert "--dataset digits" in code.inner_text()


def test_a_kernel_follows(tab, tmp_path, digits):
    """What the page sends fits together; a page that is opened again is back at the digits."""
    lab = TrainingLab(digits, **SMALL)
    page = opened(tab, tmp_path, lab)
    page.get_by_label("Cut to").select_option("28")
    draw_examples(page)
    train(page, 2)
    traits = sent(page)
    lab.set_state({name: traits[name] for name in ("settings", "own")})
    with pytest.raises(ValueError, match="there is no trained model of these settings yet"):
        lab.model()
    lab.set_state(traits)
    assert (lab.model().image_shape, lab.model().config["n_output"]) == ((1, 28, 28), 2)
    lab.settings = {"n_layers": 2}
    with pytest.raises(ValueError, match=r"n_train is 5; .* from 1 to 4"):
        lab.settings = {"n_train": 5}
    with pytest.raises(ValueError, match="choose patch_size 1, 2, 4, 7, 14, 28"):
        lab.settings = {"patch_size": 8}
    again = tab.open(write_page(tmp_path / "again.html", lab))
    assert again.evaluate(f"[{MODEL}.get('own'), {MODEL}.get('settings').n_train]") == [{}, 1294]
    lab.set_state(sent(again))
    assert lab.settings == TrainingLab(digits, **SMALL).settings
    with pytest.raises(ValueError, match="there is no trained model of these settings yet"):
        lab.model()


def test_own_images_of_another_view_are_named(tab, tmp_path, digits):
    page = opened(tab, tmp_path, TrainingLab(digits))
    page.evaluate(f"void {MODEL}.set('own', {{ id: 'another' }})")
    page.wait_for_function("document.body.innerText.includes('it trains on images that another view of it holds')")


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"id": "mx"}, "it trains on images that another view of it holds"),
        ({"id": "mx", "before": 5}, "what it holds is damaged or incomplete"),
        (
            {"id": "mx", "before": {"settings": {}, "runs": []}},
            "it holds a setting that cannot be. Patch size: choose 1, 2, 4, 8.",
        ),
    ],
)
def test_damaged_facts_are_named(tab, tmp_path, digits, own, words):
    lab = TrainingLab(digits)
    lab.own = own
    page = tab.open(write_page(tmp_path / "page.html", lab))
    page.wait_for_function(f"document.body.innerText.includes('cannot come to life: {words}')")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_on_a_phone_it_fits_and_can_be_touched(browser, tmp_path, digits, pictures, theme):
    tab = Tab(browser, viewport={"width": 390, "height": 800}, has_touch=True)
    page = opened(tab, tmp_path, TrainingLab(digits))
    page.evaluate(f"document.documentElement.dataset.theme = '{theme}'")
    choose(page, pictures)
    page.get_by_label("Name").first.fill("a name as long as a name can be here, 40")
    settle(page)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    small = """[...document.querySelectorAll(".mx-own :is(button, select, input, summary)")].filter((control) => {
      const { width, height } = control.getBoundingClientRect();
      return width && Math.min(width, height) < 44;
    }).map((control) => control.outerHTML)"""
    assert page.evaluate(small) == []
    page.locator(".mx-own .mx-board").tap()
    page.locator(".mx-targets button").first.tap()
    wait_for_images(page, 9, 8)
    assert tab.problems == []
    page.close()


def test_pictures_are_dropped_on_a_class_and_firefox_cuts_them_alike(
    browser, tmp_path_factory, tmp_path, digits, pictures
):
    """Measured: the two differ where pixels are transparent alone, by 1."""
    page_file = write_page(tmp_path / "page.html", TrainingLab(digits))
    paths = pictures["temple"][:7]
    files = {path.name: base64.b64encode(path.read_bytes()).decode() for path in paths}
    condition = "document.querySelectorAll('.mx-thumbs li').length === 7"
    tab = Tab(browser)
    page = opened(tab, tmp_path, TrainingLab(digits))
    page.evaluate(GIVE, [0, files, True])
    page.wait_for_function(condition)
    shown = [np.array(page.evaluate(THUMBS))]
    assert tab.problems == []
    page.close()
    with firefox_started(tmp_path_factory.mktemp("profile")) as firefox:
        firefox.open(page_file)
        firefox.evaluate("void (document.querySelector('details').open = true)")
        firefox.wait_for("document.querySelector('.mx-class')")
        firefox.evaluate(f"({GIVE})({json.dumps([0, files, False])})")
        firefox.wait_for(condition)
        shown.append(np.array(firefox.evaluate(THUMBS)))
        assert firefox.problems == []
    differences = np.abs(shown[0] - shown[1]).max(1)
    assert {name for name, most in zip(files, differences, strict=True) if most > 1} == set()
