"""original | reconstruction | latent of a photo at its own resolution, each under its caption; whole, or by strips.

image -> DWT -> feature extraction -> aggregation -> latent -> decoder -> losses -> [figures]
"""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from litevae.data.images import to_image
from litevae.evaluation.figures import _INK, latent_to_rgb


class Panels:
    """Panels of one size side by side: `head`, then the rows by `beside`, then `foot`; uint8 [n, width, 3] each."""

    def __init__(self, width: int, height: int, captions: Sequence[str]) -> None:
        self._captions, self._panel_width = captions, width
        self._text = max(12, min(width // 24, 48))
        self._font = ImageFont.load_default(size=self._text)
        self._gap, self._top = self._text // 2, 2 * self._text
        # at least as wide as the captions
        self._column = max(width, *(round(self._font.getlength(caption)) for caption in captions))
        self.width = len(captions) * self._column + (len(captions) + 1) * self._gap
        self.height = self._top + height + self._gap

    def head(self) -> np.ndarray:
        canvas = Image.new("RGB", (self.width, self._top), "white")
        draw = ImageDraw.Draw(canvas)
        for index, caption in enumerate(self._captions):
            place = self._left(index), self._top - self._text // 3
            draw.text(place, caption, fill=_INK, font=self._font, anchor="ls")
        return np.asarray(canvas)

    def beside(self, panels: Sequence[np.ndarray]) -> np.ndarray:
        """The same rows of each panel, uint8 [n, panel's width, 3]."""
        rows = np.full((len(panels[0]), self.width, 3), 255, np.uint8)
        for index, panel in enumerate(panels):
            rows[:, self._left(index) : self._left(index) + self._panel_width] = panel
        return rows

    def foot(self) -> np.ndarray:
        return np.full((self._gap, self.width, 3), 255, np.uint8)

    def _left(self, index: int) -> int:
        return self._gap + index * (self._column + self._gap)


def latent_rows(latent: Tensor, downsampling: int, width: int) -> "LatentRows":
    """The colours of a latent [C, h, w], each place `downsampling` pixels wide, what goes beyond `width` cut off."""
    return LatentRows(np.asarray(to_image(latent_to_rgb(latent))), downsampling, width)


class LatentRows:
    """Rows of pixels of a latent's colours."""

    def __init__(self, colours: np.ndarray, downsampling: int, width: int) -> None:
        self._colours, self._downsampling = colours, downsampling
        self._columns = np.arange(width) // downsampling

    def __call__(self, first: int, last: int) -> np.ndarray:
        """uint8 [last - first, width, 3]"""
        return self._colours[np.arange(first, last)[:, None] // self._downsampling, self._columns]


def side_by_side(
    original: Tensor, reconstruction: Tensor, latent: Tensor, captions: Sequence[str], downsampling: int
) -> Image.Image:
    """The three panels as an image.

    Args:
        original, reconstruction: [3, H, W] in [-1, 1].
        latent: [C, h, w]; each of its places is `downsampling` pixels wide, and what goes beyond the photo is cut off.
        captions: of the three.
        downsampling: the model's.
    """
    height, width = original.shape[-2:]
    panels = Panels(width, height, captions)
    images = [np.asarray(to_image(image)) for image in (original, reconstruction)]
    rows = panels.beside([*images, latent_rows(latent, downsampling, width)(0, height)])
    return Image.fromarray(np.concatenate([panels.head(), rows, panels.foot()]))
