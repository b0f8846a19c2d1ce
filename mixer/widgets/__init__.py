"""Live figures: widgets in Jupyter and Colab, and alive in a static page too."""

from mixer.widgets.cost import CostExplorer
from mixer.widgets.explorer import TokenMixingExplorer
from mixer.widgets.filter import FilterExplorer
from mixer.widgets.flow import MixerFlow
from mixer.widgets.lab import TrainingLab
from mixer.widgets.patches import PatchExplorer
from mixer.widgets.reach import ReachExplorer
from mixer.widgets.twin import ConvolutionTwin
from mixer.widgets.valley import ValleyExplorer

__all__ = [
    "ConvolutionTwin",
    "CostExplorer",
    "FilterExplorer",
    "MixerFlow",
    "PatchExplorer",
    "ReachExplorer",
    "TokenMixingExplorer",
    "TrainingLab",
    "ValleyExplorer",
]
