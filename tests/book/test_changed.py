"""A reader changes a number and runs the chapter again: it runs to its end, and its solutions stay right."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

BOOK = Path(__file__).parents[2] / "book"
CHANGES = {  # chapter → (what stands in its code, what a reader writes instead)
    "01_patches": [
        ("P = 16", "P = 8"),
        ("row, column = 1, 2", "row, column = 5, 0"),
        ("h, w, p = 4, 6, 2", "h, w, p = 6, 9, 3"),
        ("patch_size=8)", "patch_size=16)"),
        ("(4, 8, 16, 32)", "(2, 4, 8, 16)"),
    ],
    "02_per_patch_mlp": [
        ("P, n_channel = 4, 12", "P, n_channel = 2, 7"),
        ("n_layers=2", "n_layers=1"),
        ("n_epochs=10", "n_epochs=2"),
    ],
    "03_token_mixing": [
        ("patch_size=1", "patch_size=2"),
        ("n_layers=1, n_channel=8, n_hidden=16", "n_layers=2, n_channel=6, n_hidden=9"),
        ("n_epochs=20", "n_epochs=2"),
        ("[0, :, 0], 4", "[0, :, 0], 7"),
        ("explorer.layer, explorer.unit = 1, 4", "explorer.layer, explorer.unit = 2, 9"),
    ],
    "04_channel_mixing": [
        ("n_tokens, n_channel, n_hidden = 12, 8, 20", "n_tokens, n_channel, n_hidden = 20, 6, 10"),
        ("patch_size=2, n_image_channel=1", "patch_size=4, n_image_channel=1"),
        ("patch_size=2, n_image_channel=3", "patch_size=4, n_image_channel=3"),
        ("n_epochs=10", "n_epochs=2"),
    ],
    "05_whole_mixer": [
        (
            "n_layers, n_channel, n_hidden, n_output = 4, 32, 64, 10",
            "n_layers, n_channel, n_hidden, n_output = 2, 24, 48, 10",
        ),
        ("side, P, C_in = 8, 2, 1", "side, P, C_in = 8, 4, 1"),
        ("n_epochs=10", "n_epochs=2"),
    ],
    "06_training": [
        ("patch_size=2, n_layers=2, n_channel=32, n_hidden=64", "patch_size=4, n_layers=1, n_channel=16, n_hidden=32"),
        ("batch_size=64, lr=2e-3, n_epochs=25, n_few=200", "batch_size=100, lr=3e-3, n_epochs=3, n_few=150"),
        ("batch_size=20, lr=5e-3, n_epochs=10", "batch_size=50, lr=3e-3, n_epochs=1"),
        ("SEEDS = (1, 2, 3)", "SEEDS = (4, 5)"),
    ],
    "07_learned": [
        ('model_name = "mnist-14x14"', 'model_name = "mnist"'),
        ("n_shown = 10", "n_shown = 6"),
        ("n=200", "n=5"),
        ("range(20)", "range(2)"),
        ("digits-1", "digits-2"),
    ],
    "08_ablations": [
        ("patch_size=2, n_layers=2, n_channel=32, n_hidden=64", "patch_size=4, n_layers=3, n_channel=24, n_hidden=40"),
        ("n_epochs=5, batch_size=64", "n_epochs=1, batch_size=100"),
        ("SEEDS = {}, (1, 2, 3)", "SEEDS = {}, (4, 5)"),
        ("n_wide=40, n_cnn=7", "n_wide=30, n_cnn=5"),
    ],
    "09_convolution": [("digits-1", "digits-2"), ("B, channel = 8, 5", "B, channel = 6, 11")],
    "10_official": [
        ("n_layers, n_channel, P, n_classes = 2, 64, 16, 10", "n_layers, n_channel, P, n_classes = 3, 32, 32, 7")
    ],
    "11_unit_to_answer": [
        ("n_images = 100", "n_images = 60"),
        ("for seed in (1, 2, 3)]", "for seed in (2, 3)]"),
        ("example = 8", "example = 3"),
        ("n_train = 400", "n_train = 250"),
        ("n_gone = 3", "n_gone = 2"),
    ],
    "12_other_mixings": [
        ("patch_size=2, n_layers=2, n_channel=32, n_hidden=64", "patch_size=4, n_layers=1, n_channel=24, n_hidden=20"),
        ("n_epochs=4, batch_size=64", "n_epochs=1, batch_size=100"),
        ("n_rank, d = 4, 16", "n_rank, d = 3, 10"),
        ("n_steps, rate = 250", "n_steps, rate = 20"),
        ("SEEDS = (1, 2, 3)", "SEEDS = (2, 3)"),
    ],
    "13_data_and_damage": [
        ("SEEDS, N_STEPS, BATCH = (1, 2, 3), 120, 32", "SEEDS, N_STEPS, BATCH = (4, 5), 20, 50"),
        ("AMOUNTS = (40, 100, 250, 600, 1294)", "AMOUNTS = (30, 60, 200, 500, 1000)"),
        ("epsilon = 0.15 * 255", "epsilon = 0.1 * 255"),
        ("n_steps=400, **change", "n_steps=30, **change"),
        ("n_steps, large_test = 41,", "n_steps, large_test = 5,"),
        ("S, D, K = 196, 384, 2", "S, D, K = 49, 256, 3"),
    ],
}


def test_every_chapter_is_changed():
    assert sorted(CHANGES) == sorted(path.stem for path in BOOK.glob("[0-9]*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_it_runs_with_other_numbers(name):
    notebook = nbformat.read(BOOK / f"{name}.ipynb", 4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for old, new in CHANGES[name]:
        assert any(old in cell.source for cell in cells), f"{old} does not stand in the chapter any more"
        for cell in cells:
            cell.source = cell.source.replace(old, new)
    NotebookClient(notebook, resources={"metadata": {"path": str(BOOK)}}).execute()
    solutions = [cell for cell in cells if "solution" in cell.metadata.get("tags", [])]
    assert ["".join(output.text for output in cell.outputs).strip() for cell in solutions] == ["Correct."] * len(
        solutions
    )
