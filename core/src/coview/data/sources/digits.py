"""scikit-learn's handwritten digits: real, tiny and always available."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits

from coview.data.assemble import assemble
from coview.data.base import DataSettings, ImageData, Split
from coview.data.splits import digest
from coview.errors import RequestError

SIZE, COUNT = 32, 1_797


class Digits:
    """1,797 grey digits, stored at 8 pixels per side and delivered at 32."""

    def __init__(self, path: str | None = None, download: bool = False) -> None:
        """Take no path: the data come with scikit-learn."""
        if path is not None:
            raise RequestError(
                f"The data set digits comes with scikit-learn and takes no path, but {path!r} "
                f"was given. Write --data digits."
            )

    def native_size(self) -> int:
        """Return 32, as 8 pixels are too few to crop views from."""
        return SIZE

    def count(self) -> int:
        """Return the number of digits, some of which are held out."""
        return COUNT

    def load(self, settings: DataSettings, workers: int = 0) -> ImageData:
        """Load, split and describe the data; a fixed, stratified share is held out."""
        digits = load_digits()
        # Stored values are 0 to 16.
        images = torch.from_numpy(digits.images * (255 / 16)).round().to(torch.uint8)[:, None]
        labels = torch.from_numpy(digits.target).long()
        return assemble(
            "digits",
            Split(images, labels),
            None,
            settings,
            native=SIZE,
            channels=1,
            classes=tuple(map(str, digits.target_names)),
            fingerprint=digest(images, labels),
        )
