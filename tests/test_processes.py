"""Two processes under gloo equal one, for every installed method, in float64.

The kit's promise (`coview.testing`), with all methods tried by the same two
processes, since starting them is what takes the time.
"""

from __future__ import annotations

import functools

import pytest
import torch

from coview.recipes.configure import Changes
from coview.recipes.recipe import method_names
from coview.testing import Subject
from coview.testing.errors import ConformanceError
from coview.testing.processes import (
    GRADIENT,
    State,
    compare,
    in_groups,
    train_part,
    train_together,
)

ROWS = "components.target.rows"
SHARES = {"target.shard": "always", "target.draws": 6}
# Signals of the paper's length would take minutes.
SHORT = {"views.window": 1265, "encoder.last": 3}
SUBJECTS = {
    **{name: Subject(name) for name in method_names() if name != "cpc-audio"},
    "cpc-audio": Subject("cpc-audio", Changes(image_size=1300, set=SHORT)),
    **{
        f"{name} with stochastic depth": Subject(
            name, Changes(backbone="test_vit", set={"backbone.drop_path": 0.5})
        )
        for name in ("dino", "moco-v3")
    },
    "instdisc in shares": Subject("instdisc", Changes(set=SHARES, use={"loss": "nce"})),
    "cmc in shares": Subject("cmc", Changes(set=SHARES)),
}


@functools.cache
def together() -> dict[str, list[State | Exception]]:
    """Run both processes once, for all methods."""
    return dict(zip(SUBJECTS, train_together(list(SUBJECTS.values())), strict=True))


@pytest.mark.xdist_group("processes")
@pytest.mark.parametrize("name", SUBJECTS)
def test_two_processes_equal_one(name: str) -> None:
    subject, several = SUBJECTS[name], together()[name]
    whole = train_part(subject)
    assert any(key.startswith(GRADIENT) for key in whole)
    if "shares" in name:
        # The first process saves all rows; each other one has its own share of them.
        last = several[1]
        assert isinstance(last, dict), last
        share = last.pop(ROWS)
        assert share.shape[-2] * 2 == whole[ROWS].shape[-2]
        torch.testing.assert_close(share, whole[ROWS][..., -share.shape[-2] :, :])
        last[ROWS] = whole[ROWS]
    compare(whole, several, in_groups(subject))


@pytest.mark.xdist_group("processes")
def test_what_differs_is_named() -> None:
    whole = train_part(SUBJECTS["simclr"])
    compare(whole, [whole, whole], groups=False)
    key = next(iter(whole))
    halved = {**whole, key: whole[key] / 2}
    with pytest.raises(ConformanceError, match=f"{key} on process 1 of 2 differs .* by 0.5 of"):
        compare(whole, [whole, halved], groups=False)
    with pytest.raises(ConformanceError, match=f"{key} does not exist on both one and 2 processes"):
        compare(whole, [{k: v for k, v in whole.items() if k != key}, whole], groups=False)
    failed = RuntimeError("no")
    failed.add_note("in loss 'x'")
    with pytest.raises(ConformanceError, match="process 0 failed: RuntimeError: no; in loss 'x'"):
        compare(whole, [failed, whole], groups=False)
