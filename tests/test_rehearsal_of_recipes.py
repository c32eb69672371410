"""Every recipe here does a step on a CUDA device that is not there, and is evaluated on it."""

from __future__ import annotations

import pytest

from coview.recipes.recipe import find_recipe, method_names
from coview.testing import rehearse

SMALL = [name for name in method_names() if "small" in find_recipe(name).presets]
# Sixteen a part: MoCo normalises in eight groups.
FEW = {"accumulate": 2, "batch_size": 32, "evaluate": False}


@pytest.mark.parametrize("method", method_names())
def test_a_paper_s_recipe_runs_on_a_device(method: str) -> None:
    # Its own networks, views and memories; of the batch a part, which is less to pretend.
    assert rehearse(method, batch_size=16).operations > 500


@pytest.mark.parametrize("method", SMALL)
def test_a_small_preset_runs_in_half_precision_and_in_parts(method: str) -> None:
    found = rehearse(method, preset="small", precision="fp16", **FEW)  # type: ignore[arg-type]
    assert found.accumulate == 2 and found.operations > 500
