"""What the drawings share."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

DPI = 80


def new_figure(width: float, height: float) -> Figure:
    """A figure that belongs to no window; width and height in inches."""
    return Figure(figsize=(width, height), layout='constrained', dpi=DPI)


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure as PNG; creates folders."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format='png')


def show_picture(axis: Any, picture: np.ndarray) -> None:
    """Show a blue, green, red picture ``(H, W, 3)`` without axes."""
    axis.imshow(picture[..., ::-1])
    axis.set_axis_off()
