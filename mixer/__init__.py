"""MLP-Mixer: the model, its convolutional twin, data, training and checkpoints."""

from mixer.analysis import difference
from mixer.checkpoint import classify
from mixer.checkpoint import load as load_checkpoint
from mixer.checkpoint import save as save_checkpoint
from mixer.convolution import ConvolutionalMixer, from_convolution, to_convolution
from mixer.data import Split
from mixer.data import load as load_data
from mixer.devices import make_torchvision_importable
from mixer.mixing import TOKEN_MIXINGS
from mixer.model import (
    ChannelMixingMLP,
    ImageToPatches,
    MixerLayer,
    MLPMixer,
    OutputMLP,
    PerPatchMLP,
    TokenMixingMLP,
)
from mixer.pretrained import load_pretrained
from mixer.pretrained import shipped as shipped_weights
from mixer.recipe import RECIPES
from mixer.regularisation import augment, seeded
from mixer.training import Trainer, evaluate, fit, predict

make_torchvision_importable()  # for mixer.data, and for timm where it is imported after this package

__version__ = "0.1.0"
__all__ = [
    "RECIPES",
    "TOKEN_MIXINGS",
    "ChannelMixingMLP",
    "ConvolutionalMixer",
    "ImageToPatches",
    "MLPMixer",
    "MixerLayer",
    "OutputMLP",
    "PerPatchMLP",
    "Split",
    "TokenMixingMLP",
    "Trainer",
    "augment",
    "classify",
    "difference",
    "evaluate",
    "fit",
    "from_convolution",
    "load_checkpoint",
    "load_data",
    "load_pretrained",
    "predict",
    "save_checkpoint",
    "seeded",
    "shipped_weights",
    "to_convolution",
]
