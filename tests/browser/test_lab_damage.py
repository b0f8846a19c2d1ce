"""Bad addresses and damaged checkpoints in the laboratory: one sentence, the same settings, and it still trains."""

import json
import random
import struct

import pytest
import torch
from hypothesis import settings as hypothesis_settings
from playwright.sync_api import TimeoutError

from _extensions.chromium import write_page
from mixer import MLPMixer, load_data
from mixer.checkpoint import save
from mixer.cli import main
from mixer.widgets import TrainingLab

IS_LONG = hypothesis_settings.get_current_profile_name() == "long"
MODEL = "document.querySelector('.mixer-figure').model"
SETTINGS = f"JSON.stringify({MODEL}.get('settings'))"
STATUS = "document.querySelector('[role=status]').innerText"
SMALL = dict(n_layers=1, n_channel=8, n_hidden=8, n_epochs=2)
DAMAGED = "This failed: this file is no checkpoint of this book, or damaged; choose one that train.py wrote."

UNREADABLE = "The address holds no settings that can be read."
ADDRESSES = {  # what stands after #lab=, and what is said
    "": UNREADABLE,
    "%": UNREADABLE,
    "%ff": UNREADABLE,
    "{": UNREADABLE,
    "null": UNREADABLE,
    "true": UNREADABLE,
    "1e999": UNREADABLE,
    '"n_layers"': UNREADABLE,
    "[]": UNREADABLE,
    '[{"n_layers": 2}]': UNREADABLE,
    "[" * 100_000: UNREADABLE,
    '{"n_layers": NaN}': UNREADABLE,
    '{"n_layers": 2} {"n_layers": 3}': UNREADABLE,
    '{"depth": 3}': "The address holds depth, which is no setting.",
    '{"": 3}': "The address holds , which is no setting.",
    '{"__proto__": {"n_layers": 3}}': "The address holds __proto__, which is no setting.",
    '{"constructor": 1}': "The address holds constructor, which is no setting.",
    json.dumps({"x" * 100_000: 1}): f"The address holds {'x' * 40}, which is no setting.",
}
VALUES = {  # of settings, and what is said after the words on a setting that cannot be
    "n_layers": ([0, -1, 2.5, 1e308, "2", None, [], [2], {}, True], "Layers: give a whole number from 1 to 8."),
    "seed": ([2**31, 2**53, "1"], "Seed: give a whole number from 1 to 2147483647."),
    "n_train": ([0, 1e9], "Training images: give a whole number from 1 to 1"),
    "patch_size": ([3, 0, "2", [2]], "Patch size: choose 1, 2, 4, 8."),
    "lr": ([0, -1, 101, "1e-3", None, [0.1]], "Learning rate: give a number from 0.000001 to 100."),
    "warm_up": ([-0.1, 1.1, "0.1", "", [], [0.1], True, {}], "Schedule: a share from 0 to 1."),
    "norm": ([0, "batch", None, ["channels"], {"toString": 1}], "LayerNorm over: choose tokens_channels, channels."),
    "optimiser": (["lion", "x" * 100_000], "Optimiser: choose "),
    "token_mixing": (["constructor", "__proto__", {}], "Token mixing: choose mlp, linear, low_rank, random, "),
}


@pytest.fixture(scope="session")
def digits():
    return load_data("digits")


@pytest.fixture
def page(tab, tmp_path, digits):
    """A laboratory, which at the end still trains."""
    page = tab.open(write_page(tmp_path / "page.html", TrainingLab(digits, **SMALL)))
    yield page
    page.evaluate("location.hash = ''")
    page.get_by_role("button", name="Train", exact=True).click()
    page.wait_for_function(f"{MODEL}.get('history').length === {MODEL}.get('settings').n_epochs")


def wait_for_words(page, words, cause):
    try:
        page.wait_for_function(f"(words) => {STATUS}.startsWith(words)", arg=words)
    except TimeoutError:
        pytest.fail(f"{page.evaluate(STATUS)!r} is said, and not {words!r}, of {cause[:200]!r}")


def heard(page, text, words):
    """Follow a link with settings, and wait until the words are said of it."""
    page.evaluate("(text) => { location.hash = '#lab=' + text; }", text)
    wait_for_words(page, words, text)


def test_an_address_that_cannot_be_is_named(page):
    before = page.evaluate(SETTINGS)
    wrong = "The address holds a setting that cannot be. "
    named = {json.dumps({name: value}): wrong + words for name, (values, words) in VALUES.items() for value in values}
    both = json.dumps({"n_channel": 16, "n_layers": 0})  # the one that can be is not taken either
    for text, words in {**ADDRESSES, **named, both: f"{wrong}Layers: "}.items():
        heard(page, text if text[:1] == "%" else text.replace("%", "%25"), words)
        assert page.evaluate(SETTINGS) == before, text
        assert len(page.locator("[role=status]").first.inner_text()) < 400
    heard(page, '{"n_channel": 16}', "These are the settings of the link")
    assert page.evaluate(f"{MODEL}.get('settings').n_channel") == 16


def test_any_changed_address_is_taken_whole_or_named(page, digits):
    """What the page takes, the figure takes in Python."""
    lab = TrainingLab(digits, **SMALL)
    chance = random.Random(0)
    odd = [-1, 0, 1e15, 1e308, "word", "", True, [], [1], {}]
    good = dict(patch_size=4, n_layers=2, n_channel=5, n_hidden=6, norm="channels", token_mixing="shift", affine=0.5)
    good |= dict(channel_mixing="none", shuffle="global", optimiser="sgd", lr=1, warm_up=0.1, weight_decay=0.1, seed=7)
    n_taken = 0
    for _ in range(3000 if IS_LONG else 150):
        names = chance.sample(list(good), 2)
        changes = {name: good[name] if chance.random() < 0.7 else chance.choice(odd) for name in names}
        text = json.dumps(SMALL | changes)
        if chance.random() < 0.3:
            at = chance.randrange(len(text))
            text = text[:at] + chance.choice(['"', "{", "]", ",", "9", "%", ""]) + text[at + 1 :]
        before = page.evaluate(SETTINGS)
        said = page.evaluate(
            f"""async (text) => {{
              history.replaceState(null, "", "#");
              location.hash = "#lab=" + text;
              await new Promise((done) => addEventListener("hashchange", done, {{ once: true }}));
              await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
              return {STATUS};
            }}""",
            text,
        )
        after = page.evaluate(SETTINGS)
        if said.startswith("The address holds "):
            assert after == before, text
            continue
        lab.settings = json.loads(after)
        n_taken += 1
    assert n_taken > 20
    heard(page, json.dumps(SMALL), "These are the settings of the link")


@pytest.fixture(scope="session")
def model():
    torch.manual_seed(0)
    sizes = dict(n_layers=1, n_channel=8, n_hidden=8, patch_size=2)
    return MLPMixer(**sizes, n_output=10, image_size=8, n_image_channel=1)


@pytest.fixture(scope="session")
def written(tmp_path_factory, digits, model):
    """The bytes of checkpoints of one model, by what of the package wrote them."""
    folder = tmp_path_factory.mktemp("written")
    save(folder / "save", model, {"class_names": digits.class_names})
    lab = TrainingLab(digits, **SMALL)
    lab.weights = b"".join(p.detach().numpy().tobytes() for p in model.parameters())
    lab.save(folder / "lab")
    options = ["--n_layers", "1", "--n_channel", "8", "--n_hidden", "8", "--n_epochs", "1", "--out", folder / "run"]
    assert main(list(map(str, options))) == 0
    files = {"save": folder / "save", "lab": folder / "lab", "train.py": folder / "run" / "checkpoint.safetensors"}
    return {name: path.read_bytes() for name, path in files.items()}


def opened(page, content, words):
    """Choose a file, and wait until the words are said."""
    file = {"name": "a.safetensors", "mimeType": "application/octet-stream", "buffer": content}
    page.get_by_label("Open a checkpoint").set_input_files([file])
    wait_for_words(page, words, content)


@pytest.mark.parametrize("writer", ["save", "lab", "train.py"])
def test_a_checkpoint_of_every_writer_opens(page, written, writer):
    opened(page, written[writer], "The weights are there.")


def changed(content, change):
    """A file with another header: `change` gets the header and the metadata of the package in it."""
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + size])
    about = json.loads(header["__metadata__"]["mixer"])
    change(header, about)
    header["__metadata__"]["mixer"] = json.dumps(about)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + size :]


FIRST = "model.per_patch.linear.weight"
CHANGES = {  # of the header and the metadata, and what is said
    "another format": (lambda header, about: header["__metadata__"].update(format="other"), DAMAGED),
    "no configuration": (lambda header, about: about.pop("config"), DAMAGED),
    "a list as configuration": (
        lambda header, about: about.update(config=[]),
        "This failed: its patch_size is undefined",
    ),
    "a billion layers": (
        lambda header, about: about["config"].update(n_layers=10**9),
        "This failed: Layers: give a whole number from 1 to 8.",
    ),
    "a text as size": (lambda header, about: about["config"].update(n_layers="1"), "This failed: Layers: give a whole"),
    "an object as size": (
        lambda header, about: about["config"].update(n_layers={"toString": 1}),
        "This failed: Layers: give a whole",
    ),
    "larger images": (
        lambda header, about: about["config"].update(image_size=28),
        "This failed: its image_size is [28,28], and here it must be [8,8].",
    ),
    "another GELU": (
        lambda header, about: about["config"].update(gelu="tanh"),
        'This failed: its gelu is "tanh", and here it must be "erf".',
    ),
    "an unknown shuffle": (
        lambda header, about: about.update(shuffle="rows"),
        "This failed: Shuffled pixels: choose none, patches, global.",
    ),
    "a missing weight": (lambda header, about: header.pop(FIRST), DAMAGED),
    "another shape": (lambda header, about: header[FIRST].update(shape=[4, 8]), DAMAGED),
    "no shape": (lambda header, about: header[FIRST].update(shape=None), DAMAGED),
    "a weight beyond the end": (lambda header, about: header[FIRST].update(data_offsets=[10**9, 10**9 + 128]), DAMAGED),
    "a weight before the start": (lambda header, about: header[FIRST].update(data_offsets=[-128, 0]), DAMAGED),
    "a weight that is short": (lambda header, about: header[FIRST].update(data_offsets=[0, 4]), DAMAGED),
    "other metadata": (lambda header, about: about.update(mean=[0.0]), DAMAGED),
}


def test_a_damaged_checkpoint_is_named(page, written):
    before = page.evaluate(SETTINGS)
    whole = written["train.py"]
    size = struct.unpack("<Q", whole[:8])[0]
    files = {
        "empty": (b"", DAMAGED),
        "seven bytes": (whole[:7], DAMAGED),
        "the length alone": (whole[:8], DAMAGED),
        "half the header": (whole[: size // 2], DAMAGED),
        "the last byte is missing": (whole[:-1], DAMAGED),
        "a shorter header": (struct.pack("<Q", size - 1) + whole[8:], DAMAGED),
        "a longer header": (struct.pack("<Q", size + 8) + whole[8:], DAMAGED),
        "an endless header": (struct.pack("<Q", 2**63) + whole[8:], DAMAGED),
        "null as header": (struct.pack("<Q", 4) + b"null", DAMAGED),
        "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(100), DAMAGED),
        "a text": (b"These are no weights.\n" * 100, DAMAGED),
        "one other bit": (whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:], DAMAGED),
    }
    files |= {name: (changed(whole, change), words) for name, (change, words) in CHANGES.items()}
    for name, (content, words) in files.items():
        opened(page, written["lab"], "The weights are there.")  # so that the sentence is a new one
        opened(page, content, words)
        assert ".." not in page.locator("[role=status]").first.inner_text(), name
        assert page.evaluate(SETTINGS) == before, name


@pytest.mark.parametrize(
    ("type_", "words"),
    [
        (torch.bfloat16, "This failed: its weights are BF16, and here they must be F32; save it as float32."),
        (torch.float16, "This failed: its weights are F16, and here they must be F32; save it as float32."),
        (torch.float64, "This failed: its weights are F64, and here they must be F32; save it as float32."),
        (None, "This failed: one of its weights is not a finite number; train it anew."),
    ],
)
def test_weights_that_the_page_does_not_take_are_named(page, tmp_path, model, type_, words):
    other = MLPMixer(**model.config)
    other.output.linear.bias.data[3] = 0 if type_ else float("nan")
    save(tmp_path / "other", other.to(type_ or torch.float32))
    opened(page, (tmp_path / "other").read_bytes(), words)
