"""``coview.Embedder`` among scikit-learn's own: its checks, pipelines, copies and pickles."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.datasets import load_digits
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.utils import estimator_checks

import coview
from coview import Embedder, RequestError

# Those that need no table of numbers: scikit-learn makes no images for the others.
CHECKS = (
    *("check_estimator_cloneable", "check_estimator_repr", "check_estimator_tags_renamed"),
    *("check_get_params_invariance", "check_mixin_order", "check_no_attributes_set_in_init"),
    *("check_set_params", "check_valid_tag_types", "check_parameters_default_constructible"),
)
SMALL: dict[str, Any] = {"batch_size": 64, "device": "cpu", "preset": "tiny"}


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def digits() -> tuple[np.ndarray[Any, Any], ...]:
    """Return training images, test images, and the labels of both."""
    found = load_digits()
    images = (found.images * 15).astype(np.uint8)
    parts: tuple[np.ndarray[Any, Any], ...] = tuple(
        train_test_split(images, found.target, test_size=300, random_state=0)
    )
    return parts


@pytest.mark.parametrize("name", CHECKS)
def test_scikit_learns_checks(name: str) -> None:
    getattr(estimator_checks, name)("Embedder", Embedder(epochs=1, **SMALL))


def test_a_pipeline_classifies_by_what_was_learned_without_labels() -> None:
    train, test, labels, truth = digits()
    views = {"views.flip_p": 0.0, "views.crop_scale": (0.5, 1.0)}
    pipeline = make_pipeline(
        Embedder(epochs=4, set=views, seed=1, **SMALL), LogisticRegression(max_iter=2000)
    )
    pipeline.fit(train, labels)
    assert pipeline.score(test, truth) > 0.85
    embedder = pipeline[0]
    rows = embedder.transform(test)
    assert rows.shape == (300, embedder.n_features_out_) and rows.dtype == np.float32
    assert list(embedder.get_feature_names_out())[:2] == ["embedder0", "embedder1"]
    network = coview.load_backbone(embedder.run_)
    assert network.width == embedder.n_features_out_
    again = pickle.loads(pickle.dumps(embedder)).transform(test)
    np.testing.assert_array_equal(rows, again)
    assert not hasattr(clone(embedder), "run_")


def test_the_run_is_that_of_coview_train(tmp_path: Path) -> None:
    images = digits()[0][:256]
    fitted = Embedder(epochs=1, seed=3, out="mine", **SMALL).fit(images)
    run = coview.train(data=images, epochs=1, seed=3, evaluate=False, progress=False, **SMALL)
    assert fitted.run_ == tmp_path / "mine"
    rows = coview.embed(run.path, images)["embeddings"]
    np.testing.assert_array_equal(fitted.transform(images), rows)
    with pytest.raises(RequestError, match="already holds a run"):
        fitted.fit(images)


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(NotFittedError):
        Embedder().transform(digits()[0])
    with pytest.raises(RequestError, match="Did you mean 'simclr'"):
        Embedder("simclt").fit(digits()[0])
    lost = Embedder(epochs=1, out="gone", **SMALL).fit(digits()[0][:128])
    lost.run_.rename("elsewhere")
    with pytest.raises(RequestError, match="gone"):
        lost.transform(digits()[0])
