"""Live figures: widgets in Jupyter and Colab, and alive in a static page too."""

from mixer.widgets.patches import PatchExplorer

__all__ = ["PatchExplorer"]
