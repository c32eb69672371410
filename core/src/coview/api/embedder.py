"""``coview.Embedder``: training and embedding as one step of a scikit-learn pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

if TYPE_CHECKING:
    from sklearn.utils import Tags
    from torch import nn

    Array = np.ndarray[Any, Any]


class Embedder(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Learn from images without labels (``fit``), and turn images into embeddings.

    A scikit-learn transformer: ``make_pipeline(Embedder(epochs=20), LogisticRegression())``.
    Images are what ``data`` may be in :func:`coview.train`: an array (N, H, W), (N, H, W, C) or
    (N, C, H, W) of uint8 or of floats in [0, 1], or the path of a folder. Labels are never
    looked at. Each ``fit`` is a run like any other, in a directory of its own, which
    ``transform`` reads: a pickled Embedder needs it.

    Args:
        method, epochs, batch_size, lr, backbone, image_size, preset, use, set, views, seed,
            device: as for :func:`coview.train`.
        out: the run's directory; a second ``fit`` is refused there. None: a new one for each.
        progress: whether to show how training goes.

    Attributes:
        run_: the run's directory.
        n_features_out_: width of an embedding.
    """

    def __init__(
        self,
        method: str | Path = "simclr",
        *,
        epochs: int | None = None,
        batch_size: int | None = None,
        lr: float | str | None = None,
        backbone: str | nn.Module | None = None,
        image_size: int | None = None,
        preset: str | None = None,
        use: Mapping[str, str | Sequence[str]] | None = None,
        set: Mapping[str, Any] | None = None,
        views: str | Callable[[Any], Any] | Sequence[Callable[[Any], Any]] | None = None,
        seed: int | None = None,
        device: str | None = None,
        out: str | Path | None = None,
        progress: bool = False,
    ) -> None:
        self.method = method
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.backbone = backbone
        self.image_size = image_size
        self.preset = preset
        self.use = use
        self.set = set
        self.views = views
        self.seed = seed
        self.device = device
        self.out = out
        self.progress = progress

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: N803  # as scikit-learn calls it
        """Train on images without labels.

        Args:
            X: images, see the class.
            y: ignored.

        Raises:
            RequestError: a setting or the images are wrong.
            CoviewError: training failed.
        """
        from coview.api import load_backbone, train

        run = train(data=images_of(X), evaluate=False, report=False, **self.get_params(deep=False))
        self.run_ = run.path.resolve()
        self.n_features_out_ = load_backbone(self.run_, backbone=self._module()).width
        return self

    def transform(self, X: Any) -> Array:  # noqa: N803
        """Return embeddings (N, D) float32, NaN in the row of an image that cannot be read.

        Args:
            X: images, see the class.

        Raises:
            NotFittedError: nothing was trained yet.
            RequestError: these are no images.
            CoviewError: the run's directory is gone.
        """
        from coview.api import embed

        check_is_fitted(self)
        device = self.device or "auto"
        found = embed(self.run_, images_of(X), device=device, backbone=self._module())
        rows: Array = found["embeddings"]
        return rows

    def _module(self) -> nn.Module | None:
        """Return the backbone if it is a module, which a run does not keep."""
        return None if self.backbone is None or isinstance(self.backbone, str) else self.backbone

    @property
    def _n_features_out(self) -> int:
        width: int = self.n_features_out_
        return width

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.non_deterministic = True  # a run's seed decides, but a GPU rounds as it likes
        return tags


def images_of(given: Any) -> Any:
    """Return images as coview takes them; a list of arrays of one shape becomes one array."""
    return np.stack(given) if isinstance(given, (list, tuple)) and given else given
