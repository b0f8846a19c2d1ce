"""Bad input of every kind, drawn by chance: one clear sentence, no traceback, nothing hangs, nothing is lost.

`make fuzz` draws many more: hypothesis' profile "long".
"""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mixer import checkpoint, data
from mixer.cli.options import make_parser

QUICK = ["--n_layers", "1", "--n_channel", "8", "--n_hidden", "8", "--num_threads", "1"]
ABOUT = dict(mean=[0.3], std=[0.25], class_names=["a", "b", "c"])
IS_LONG = settings.get_current_profile_name() == "long"
SENTENCE = r"^[^\n]+$"


def times(short: int, long: int):
    """How often a test draws: in every run of the tests, and in the long one."""
    return settings(max_examples=long if IS_LONG else short, deadline=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


# ------------------------------------------------------------------------------------------------------- the command

OPTIONS = sorted(
    option for action in make_parser()._actions for option in action.option_strings if option.startswith("--")
)
WORDS = ["", "0", "-1", "3", "0.5", "1e400", "nan", "inf", "digits", "folder", "strong", "cpu", "bf16", "é", "\n", "--"]
values = st.one_of(st.sampled_from(WORDS), st.integers(-4, 40).map(str), st.integers(2**31, 2**70).map(str), st.text())


@times(60, 3000)
@given(given_options=st.lists(st.tuples(st.sampled_from(OPTIONS), st.none() | values), max_size=4))
def test_any_options_are_taken_or_refused_in_a_sentence(folder, given_options, say):
    """All of the command but the training itself."""
    argv = [word for option in given_options for word in option if word is not None and "\0" not in word]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("mixer.cli.Run.train", lambda self: 0)
        printed = []
        patch.setattr("sys.stderr.write", printed.append)
        status = say(*QUICK, *argv)
    assert status in (0, 2), argv
    said = "".join(printed).strip()
    assert status == 0 or (said.startswith("train.py: ") and len(said.splitlines()) == 1), said


# ----------------------------------------------------------------------------------------------------------- files


def damaged(content: bytes, draw) -> bytes:
    """The bytes cut short, or some of them changed."""
    content = bytearray(content)
    if draw(st.booleans(), label="truncate"):
        return bytes(content[: draw(st.integers(0, len(content) - 1))])
    for _ in range(draw(st.integers(1, 4))):
        content[draw(st.integers(0, len(content) - 1))] ^= draw(st.integers(1, 255))
    return bytes(content)


@times(150, 5000)
@given(drawn=st.data())
def test_any_damaged_checkpoint_is_refused_in_a_sentence(folder, drawn, small_model):
    path = folder / "m.safetensors"
    if not path.exists():
        checkpoint.save(path, small_model(), ABOUT)
    content = damaged(path.read_bytes(), drawn.draw)
    (folder / "damaged.safetensors").write_bytes(content)
    if content != path.read_bytes():
        with pytest.raises(ValueError, match=SENTENCE):
            checkpoint.load(folder / "damaged.safetensors")


@times(60, 2000)
@given(drawn=st.data())
def test_any_damaged_image_is_read_or_refused_in_a_sentence(folder, drawn, write_folder):
    images = folder / "images"
    if not images.exists():
        write_folder(images, n=2)
    path = images / "test" / "ant" / "0.png"
    good = path.read_bytes()
    path.write_bytes(damaged(good, drawn.draw))
    try:
        data.load("folder", images)
    except (OSError, ValueError) as error:
        assert "\n" not in str(error)
    finally:
        path.write_bytes(good)


@times(100, 5000)
@given(
    height=st.integers(-2, 70), width=st.integers(-2, 70), patch_size=st.integers(-2, 70), channels=st.integers(0, 4)
)
def test_any_sizes_make_a_model_or_a_sentence(height, width, patch_size, channels, small_model):
    changes = dict(image_size=(height, width), patch_size=patch_size, n_image_channel=channels)
    try:
        model = small_model(**changes)
    except ValueError as error:
        assert "\n" not in str(error)
    else:
        assert model(torch.zeros(1, channels, height, width)).shape == (1, 3)
