"""The laboratory in Chromium: a Mixer is trained in the page, and what the page says of it is so."""

import json
import math
import re

import pytest
import torch

from _extensions.chromium import Tab, settle, write_page
from mixer import TOKEN_MIXINGS, Split, evaluate, load_checkpoint, load_data
from mixer.cli.options import make_parser, resolve
from mixer.data import DataSet, normalise, pixel_order
from mixer.widgets import TrainingLab

LOSSES = ["train_loss", "train_accuracy", "validation_loss", "validation_accuracy"]
KEYS = ["epoch", *LOSSES, "lr", "seconds", "images_per_second"]
MODEL = "document.querySelector('.mixer-figure').model"
STANDS = f"{MODEL}.get('running') === false && document.querySelector('[role=status]').innerText.match(/%s/)"
WEIGHTS = f"Array.from(new Uint8Array({MODEL}.get('weights').buffer))"
SMALL = dict(n_layers=1, n_channel=8, n_hidden=8, n_epochs=2)


@pytest.fixture(scope="session")
def digits():
    return load_data("digits")


def opened(tab, tmp_path, lab):
    return tab.open(write_page(tmp_path / "page.html", lab))


def train(page, words="Finished"):
    page.get_by_role("button", name="Train", exact=True).click()
    page.wait_for_function(STANDS % words)


def trained(page, lab):
    """The model that a page has trained, as a kernel would have it."""
    lab.settings = page.evaluate(f"{MODEL}.get('settings')")
    lab.weights = bytes(page.evaluate(WEIGHTS))
    return lab.model()


def test_a_model_without_room_ends_no_later_run(tab, tmp_path, digits):
    lab = TrainingLab(digits, n_layers=8, n_channel=256, n_hidden=512, n_epochs=2)
    memory = re.search(rb"\x05\x03\x01\x00(.)", lab.engine, flags=re.DOTALL)
    lab.engine = lab.engine.replace(memory[0], b"\x05\x04\x01\x01" + memory[1] + b"\x7f")  # of at most 127 pages
    page = opened(tab, tmp_path, lab)
    train(page, "Stopped: the model is too large for the memory of this page")
    page.evaluate(
        f"{MODEL}.set('settings', {{...{MODEL}.get('settings'), ...{json.dumps(SMALL)}}}); {MODEL}.save_changes()"
    )
    train(page)


def test_weights_stay_those_of_their_run(tab, tmp_path, digits):
    """Other choices, made since, fit the same weights; they name another model."""
    lab = TrainingLab(digits, **SMALL)
    page = opened(tab, tmp_path, lab)
    train(page)
    lab.trained = page.evaluate(f"{MODEL}.get('trained')")
    model = trained(page, lab)
    lab.settings = {"token_mixing": "low_rank", "shuffle": "global"}
    assert lab.model().config == model.config and model.config["token_mixing"] == "mlp"
    lab.save(tmp_path / "lab.safetensors")
    assert load_checkpoint(tmp_path / "lab.safetensors")[1]["shuffle"] == "none"


def test_a_warm_up_from_elsewhere_is_offered(tab, tmp_path, digits):
    page = opened(tab, tmp_path, TrainingLab(digits, warm_up=0.2))
    chosen = page.get_by_label("Schedule").locator("option:checked")
    assert chosen.inner_text() == "warm-up of 20.0 %, then cosine"
    page.get_by_label("Schedule").select_option("constant")
    assert page.evaluate(f"{MODEL}.get('settings').warm_up") is None


def test_it_trains_and_says_what_is_so(tab, tmp_path, digits):
    lab = TrainingLab(digits, n_epochs=5)
    page = opened(tab, tmp_path, lab)
    train(page)
    history = page.evaluate(f"{MODEL}.get('history')")
    assert [list(record) for record in history] == [KEYS] * 5
    assert [record["epoch"] for record in history] == [1, 2, 3, 4, 5]
    assert history[-1]["train_loss"] < 0.3 * history[0]["train_loss"]
    model = trained(page, lab)
    found = evaluate(model, digits, digits.validation)
    assert found["accuracy"] == pytest.approx(history[-1]["validation_accuracy"], abs=1e-6)
    assert found["loss"] == pytest.approx(history[-1]["validation_loss"], rel=1e-4)
    test = evaluate(model, digits, digits.test)["accuracy"]
    assert f"{test:.1%}".replace("%", " %") in page.locator("[role=status]").first.inner_text()
    assert test > 0.9
    assert f"{model.n_parameters:,} parameters" in page.locator(".mx-lab").inner_text()


@pytest.mark.parametrize("shuffle", ["patches", "global"])
def test_shuffled_pixels_have_the_order_of_the_package(tab, tmp_path, digits, shuffle):
    lab = TrainingLab(digits, shuffle=shuffle, **SMALL)
    page = opened(tab, tmp_path, lab)
    train(page)
    loss = page.evaluate(f"{MODEL}.get('history')")[-1]["validation_loss"]
    shuffled = digits.shuffled(shuffle, 2)
    assert evaluate(trained(page, lab), shuffled, shuffled.validation)["loss"] == pytest.approx(loss, rel=1e-4)
    assert (pixel_order(shuffle, (8, 8), 2) != torch.arange(64)).any()


@pytest.mark.parametrize("token_mixing", TOKEN_MIXINGS)
def test_every_token_mixing_learns_what_python_reads(tab, tmp_path, digits, token_mixing):
    lab = TrainingLab(digits, token_mixing=token_mixing, channel_mixing="mlp", affine=1.0, **SMALL)
    page = opened(tab, tmp_path, lab)
    train(page)
    record = page.evaluate(f"{MODEL}.get('history')")[-1]
    found = evaluate(trained(page, lab), digits, digits.validation)
    assert found["loss"] == pytest.approx(record["validation_loss"], rel=1e-4)


def test_the_time_bar_shows_an_earlier_moment(tab, tmp_path, digits):
    page = opened(tab, tmp_path, TrainingLab(digits, **SMALL))
    train(page)
    settle(page)
    sheet = page.locator(".mx-layers canvas").first
    last = sheet.evaluate("(canvas) => canvas.toDataURL()")
    bar = page.get_by_role("slider", name="Epoch")
    bar.press("ArrowLeft")
    page.wait_for_function("(last) => document.querySelector('.mx-layers canvas').toDataURL() !== last", arg=last)
    bar.press("ArrowRight")
    page.wait_for_function("(last) => document.querySelector('.mx-layers canvas').toDataURL() === last", arg=last)


def test_a_checkpoint_goes_out_and_comes_back(tab, tmp_path, digits):
    lab = TrainingLab(digits, token_mixing="kronecker", **SMALL)
    page = opened(tab, tmp_path, lab)
    train(page)
    weights = page.evaluate(WEIGHTS)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download checkpoint").click()
    path = tmp_path / "lab.safetensors"
    download.value.save_as(path)
    model, about = load_checkpoint(path)
    assert about["class_names"] == digits.class_names and about["settings"]["seed"] == 1
    assert all((a == b).all() for a, b in zip(model.parameters(), trained(page, lab).parameters(), strict=True))
    page.get_by_label("Layers").fill("2")
    page.get_by_label("Layers").press("Enter")
    page.get_by_role("button", name="Reset").click()
    page.get_by_label("Open a checkpoint").set_input_files(path)
    page.wait_for_function("document.querySelector('[role=status]').innerText.includes('The weights are there')")
    page.get_by_role("button", name="Step").click()
    page.wait_for_function(f"{MODEL}.get('step') === 1 && !{MODEL}.get('running')")
    after = page.evaluate(WEIGHTS)
    assert len(after) == len(weights)
    change = torch.frombuffer(bytearray(after), dtype=torch.float32)
    change = change - torch.frombuffer(bytearray(weights), dtype=torch.float32)
    assert 0 < change.abs().max() < 0.01  # one step of Adam from those weights


def test_what_cannot_work_is_named_beside_its_control(tab, tmp_path, digits):
    page = opened(tab, tmp_path, TrainingLab(digits, **SMALL))
    field = page.get_by_label("Layers")
    for wrong in ("0", "1e9", "", "2.5"):
        field.fill(wrong)
        field.press("Enter")
        assert "Layers: give a whole number from 1 to 8." in page.locator(".mx-settings").inner_text()
        assert page.evaluate(f"{MODEL}.get('settings').n_layers") == 1
    field.fill("2")
    field.press("Enter")
    settle(page)
    assert "give a whole number" not in page.locator(".mx-settings").inner_text()


@pytest.mark.parametrize("n_train", [1000, 64], ids=["in a step", "between two steps, for the validation images"])
def test_a_loss_that_is_no_number_stops_with_the_sentence_of_the_command(tab, tmp_path, digits, n_train):
    """The moment that is shown, and that the kernel gets, is the last whose loss is a number."""
    settings = SMALL | dict(n_epochs=200)
    lab = TrainingLab(digits, optimiser="sgd", lr=100.0, n_train=n_train, **settings)
    page = opened(tab, tmp_path, lab)
    train(page, r"the loss is no longer a number in epoch \d+; choose a smaller lr")
    history = page.evaluate(f"{MODEL}.get('history')")
    said = page.locator("[role=status]").first.inner_text()
    assert f"in epoch {len(history) + 1};" in said
    assert all(math.isfinite(record[name]) for record in history for name in LOSSES)
    model = trained(page, lab).double()
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    images = normalise(digits.validation.images, digits.mean, digits.std).double()
    loss = torch.nn.functional.cross_entropy(model(images), digits.validation.labels).item()
    assert not history or loss == pytest.approx(history[-1]["validation_loss"], rel=1e-3)
    assert "NaN" not in page.locator(".mx-lab").inner_text()


def test_the_address_holds_the_settings(browser, tmp_path, digits):
    page_file = write_page(tmp_path / "page.html", TrainingLab(digits))
    for text, words in (
        ('{"n_layers": 3}', "settings of the link"),
        ('{"n_layers": -1}', "Layers: give a"),
        ("x", "can be read"),
    ):
        tab = Tab(browser)
        page = tab.open(f"{page_file.as_uri()}#lab={text}")
        assert words in page.locator("[role=status]").first.inner_text()
        assert page.evaluate(f"{MODEL}.get('settings').n_layers") == (3 if "3" in text else 2)
        assert tab.problems == []
        page.close()


def test_three_seeds_are_kept_beside_each_other(tab, tmp_path, digits):
    page = opened(tab, tmp_path, TrainingLab(digits, **SMALL))
    page.get_by_role("button", name="Train 3 seeds").click()
    page.wait_for_function(f"{MODEL}.get('runs').length === 3 && !{MODEL}.get('running')")
    runs = page.evaluate(f"{MODEL}.get('runs')")
    assert [run["settings"]["seed"] for run in runs] == [1, 2, 3]
    assert len({run["history"][-1]["train_loss"] for run in runs}) == 3
    assert page.evaluate(f"{MODEL}.get('settings').seed") == 1  # the next series has the same seeds


@pytest.mark.parametrize(
    "changes",
    [
        {},
        dict(warm_up=0.1, affine=1.0, weight_decay=0.1, label_smoothing=0.1, token_mixing="shift"),
        dict(n_train=100, optimiser="sgd", shuffle="patches", channel_mixing="none", norm="channels"),
    ],
)
def test_the_command_is_one_that_train_takes(tab, tmp_path, digits, changes):
    """Every setting has its option, and comes back from the command's own parser as it was."""
    page = opened(tab, tmp_path, TrainingLab(digits, **changes))
    words = page.locator(".mx-lab code").inner_text().split()
    assert words[:2] == ["python", "train.py"]
    options = resolve(vars(make_parser().parse_args(words[2:])), {})
    recipe = options.make_recipe()
    settings = page.evaluate(f"{MODEL}.get('settings')")
    if settings["n_train"] == len(digits.train):
        settings["n_train"] = None
    assert {name: getattr(options, name) for name in settings} == settings
    assert recipe.optimiser == settings["optimiser"] and options.dataset == "digits"


def test_few_images_are_those_of_the_package(tab, tmp_path, digits):
    """At a vanishing rate the record is the loss of the untrained model on the very images that it learns from."""
    lab = TrainingLab(digits, n_train=50, batch_size=50, lr=1e-6, optimiser="sgd", **SMALL)
    page = opened(tab, tmp_path, lab)
    train(page)
    few = digits.first(50)
    found = evaluate(trained(page, lab), few, few.train)["loss"]
    assert page.evaluate(f"{MODEL}.get('history')")[-1]["train_loss"] == pytest.approx(found, rel=1e-5)
    others = digits.first(51)
    assert evaluate(trained(page, lab), others, others.train)["loss"] != pytest.approx(found, rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(patch_size=3), "choose patch_size"),
        (dict(n_layers=99), "n_layers is 99; in a page it is a whole number from 1 to 8"),
        (dict(optimiser="lion"), "optimiser is 'lion'; choose one of adam, sgd"),
        (dict(depth=3), "depth is no setting; choose from patch_size"),
        (dict(lr=-1.0), "lr is -1.0; it must be a positive number"),
        (dict(token_mixing="attention"), "token_mixing is 'attention'"),
    ],
)
def test_settings_that_cannot_work_are_refused(digits, settings, words):
    with pytest.raises(ValueError, match=words):
        TrainingLab(digits, **settings)


def test_a_data_set_that_a_page_cannot_hold_is_refused(digits):
    images = torch.zeros(10, 3, 224, 224, dtype=torch.uint8)
    split = Split(images, torch.zeros(10, dtype=torch.int64))
    data = DataSet("large", split, split, split, ["a", "b"], [0.5] * 3, [0.5] * 3, (3, 224, 224))
    with pytest.raises(ValueError, match="the images of large are too many for a page"):
        TrainingLab(data)
    with pytest.raises(ValueError, match="there is no trained model of these settings yet"):
        TrainingLab(digits).model()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (dict(counts=[1, 2, 3]), "its images are damaged or incomplete"),
        (dict(counts=[1e8, 1, 1]), "its images are damaged or incomplete"),
        (dict(shape=[1, 1e8, 6.4e-7]), "its images are damaged or incomplete"),
        (dict(labels={"base64": "AA=="}), "its images are damaged or incomplete"),
        (dict(class_names=["a", "b"]), "its images are damaged or incomplete"),
        (dict(patch_sizes=[1e8]), "its images are damaged or incomplete"),
        (dict(settings={}), "Patch size: choose 1, 2, 4, 8."),
        (dict(settings=dict(n_layers=1e8)), "Patch size: choose 1, 2, 4, 8."),
        (dict(engine={"base64": "AAAA"}), "its engine is damaged or incomplete"),
    ],
)
def test_a_damaged_state_is_named(browser, tmp_path, digits, damage, words):
    lab = TrainingLab(digits)
    path = write_page(tmp_path / "page.html", lab)
    text = path.read_text()
    state = json.dumps({"state": lab.state(), "module": lab._esm, "css": lab._css}, sort_keys=True)
    wrong = json.dumps({"state": {**lab.state(), **damage}, "module": lab._esm, "css": lab._css}, sort_keys=True)
    assert state.replace("<", "\\u003c") in text
    path.write_text(text.replace(state.replace("<", "\\u003c"), wrong.replace("<", "\\u003c")))
    tab = Tab(browser)
    page = tab.open(path)
    page.wait_for_function("(words) => document.body.innerText.includes(words)", arg=words, timeout=5000)
    page.close()


def test_reset_ends_the_training_of_several_seeds(tab, tmp_path, digits):
    page = opened(tab, tmp_path, TrainingLab(digits, **SMALL | dict(n_epochs=200)))
    page.get_by_role("button", name="Train 3 seeds").click()
    page.wait_for_function(f"{MODEL}.get('history').length > 0")
    page.get_by_role("button", name="Reset").click()
    page.get_by_label("Epochs", exact=True).fill("2")
    page.get_by_label("Epochs", exact=True).press("Enter")
    train(page)
    settle(page)
    assert page.evaluate(f"[{MODEL}.get('runs').length, {MODEL}.get('running')]") == [0, False]


def test_a_pause_keeps_the_run_and_train_goes_on(tab, tmp_path, digits):
    lab = TrainingLab(digits, **SMALL | dict(n_epochs=40))
    page = opened(tab, tmp_path, lab)
    button = page.locator(".mx-buttons button").first
    button.click()
    page.wait_for_function(f"{MODEL}.get('step') > 5")
    button.click()
    page.wait_for_function(
        f"!{MODEL}.get('running') && document.querySelector('.mx-buttons button').innerText === 'Train'"
    )
    train(page)
    assert page.evaluate(f"{MODEL}.get('history').map(({{ epoch }}) => epoch)") == list(range(1, 41))


def test_step_stops_a_run_and_takes_one_batch(tab, tmp_path, digits):
    page = opened(tab, tmp_path, TrainingLab(digits, **SMALL | dict(n_epochs=500)))
    page.evaluate(f"void {MODEL}.on('change:weights', () => (window.nRests = (window.nRests ?? 0) + 1))")
    page.get_by_role("button", name="Train", exact=True).click()
    page.wait_for_function(f"{MODEL}.get('history').length > 0")
    steps = []
    for n in (1, 2):
        page.get_by_role("button", name="Step", exact=True).click()
        page.wait_for_function(f"window.nRests === {n} && !{MODEL}.get('running')")
        settle(page)
        assert page.locator(".mx-buttons button").first.inner_text() == "Train"
        steps.append(page.evaluate(f"{MODEL}.get('step')"))
    assert steps[1] == steps[0] + 1


def test_step_takes_no_batch_beyond_the_last(tab, tmp_path, digits):
    """Also where the page has not heard yet that the run is over."""
    page = opened(tab, tmp_path, TrainingLab(digits, n_train=64, **SMALL))
    page.evaluate(f"""() => {{
      const step = [...document.querySelectorAll("button")].find((button) => button.textContent === "Step");
      {MODEL}.on("change:step", () => {MODEL}.get("step") === 1 && [1, 2, 3].forEach(() => step.click()));
      {MODEL}.set("running", true);
    }}""")
    page.wait_for_function(STANDS % "Finished")
    settle(page)
    assert page.evaluate(f"{MODEL}.get('step')") == 2


def test_a_setting_that_is_changed_and_changed_back_is_the_same_run(tab, tmp_path, digits):
    page = opened(tab, tmp_path, TrainingLab(digits, **SMALL | dict(n_epochs=20)))
    page.get_by_role("button", name="Step", exact=True).click()
    page.wait_for_function(f"{MODEL}.get('step') === 1")
    norm = page.get_by_label("LayerNorm over")
    status = page.locator("[role=status]").first
    norm.select_option("channels")
    settle(page)
    assert "The settings have changed: Train begins a new run." in status.inner_text()
    norm.select_option("tokens_channels")
    settle(page)
    assert status.inner_text() == "Epoch 0.04 of 20."
    page.evaluate("location.hash = '#lab={}'")
    page.wait_for_function("document.querySelector('[role=status]').innerText.includes('settings of the link')")
    assert status.inner_text() == "These are the settings of the link; press Train."
    page.get_by_role("button", name="Step", exact=True).click()
    page.wait_for_function(f"{MODEL}.get('step') === 2")


def test_what_was_said_is_over_once_the_run_changes(tab, tmp_path, digits):
    lab = TrainingLab(digits, **SMALL)
    lab.weights = bytes(4 * lab._config(lab.settings).n_parameters)
    lab.save(tmp_path / "lab.safetensors")
    page = opened(tab, tmp_path, lab)
    bar = page.get_by_role("slider", name="Epoch")
    chart = page.locator(".mx-chart").first
    step = page.get_by_role("button", name="Step", exact=True)
    for act, after in (
        (page.get_by_role("button", name="Reset").click, "Epoch 0 of 2."),
        (step.click, "Epoch 0.04 of 2."),
        (lambda: [step.click(), bar.press("Home")], "Epoch 0 of 2."),
        (lambda: [step.click(), chart.click(position={"x": 1, "y": 9})], "Epoch 0 of 2."),
    ):
        page.get_by_label("Open a checkpoint").set_input_files(tmp_path / "lab.safetensors")
        page.wait_for_function("document.querySelector('[role=status]').innerText.includes('The weights are there')")
        act()
        page.wait_for_function(f"document.querySelector('[role=status]').innerText === '{after}'")
