"""The chain: every step changes what it says, and carries nothing of what it exchanged."""

from __future__ import annotations

from coview.recipes.recipe import find_recipe
from coview_studies.lineage import BUDGET, STEPS, one_change_at_a_time
from coview_studies.methods import METHODS

# Where a step stops short of the method: SimSiam's detached keys serve SwAV as they are, and
# InstDisc's linear layer and BYOL's projector stand for heads of the same kind.
OTHERWISE = {
    "SwAV": {"target": "shared"},
    "SimCLR": {"encoder": "projection"},
    "MoCo v2": {"encoder": "projection"},
}


def test_each_step_has_the_parts_of_the_method_that_it_is_called_after() -> None:
    start = find_recipe("instdisc")
    # The preset for small images takes a softmax over the bank.
    here = {"encoder": "linear", "target": "memory-bank", "negatives": "memory-bank"}
    here["loss"] = "non-parametric-softmax"
    for step in STEPS:
        here |= one_change_at_a_time.variants[step.name].use
        recipe = find_recipe(step.name.lower().replace(" ", "-"))
        there = {role: recipe.uses(role)[0].name for role in here}
        if recipe.name == start.name:
            there["loss"] = here["loss"]
        assert {**there} == {**here, **OTHERWISE.get(step.name, {})}, step.name


def test_no_setting_outlives_its_component() -> None:
    variants = list(one_change_at_a_time.variants.values())
    assert "negatives.size" in variants[1].set and "negatives.size" not in variants[3].set
    assert "target.decay" not in variants[3].set and "views.symmetric" in variants[-1].set
    assert variants[4].set["encoder.predictor"] is True


def test_all_steps_cost_about_the_same() -> None:
    for step in STEPS:
        epochs = one_change_at_a_time.variants[step.name].epochs
        assert epochs is not None and epochs * step.cost == BUDGET


def test_twelve_methods() -> None:
    assert len(set(METHODS)) == 12
    assert all(find_recipe(method).paper for method in METHODS)
