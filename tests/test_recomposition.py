"""Parts of one method in another, from the command line."""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch

import coview
from coview.recipes.configure import Changes, configure

Run = Callable[..., Any]
BYOL = ("--set", "encoder.hidden=32", "--set", "encoder.predictor_hidden=32")
QUEUE = ("--use", "negatives=queue", "--set", "negatives.size=24", "--batch-size", 8)


def train(run: Run, idx: Path, tiny: tuple[str, ...], method: str, *changes: object) -> Any:
    """Train two steps; return the recipe's tables and the state, the losses being finite."""
    options = ("--data", f"idx:{idx}", "--out", "r", *tiny, "--max-steps", 2, "--no-evaluate")
    run("train", method, *options, *changes, "--log-every", 1)
    lines = Path("r/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert len(losses) == 2 and all(map(math.isfinite, losses))
    recipe = tomllib.loads(Path("r/recipe.toml").read_text(encoding="utf-8"))
    negatives = recipe["negatives"]
    recipe["negatives"] = negatives if isinstance(negatives, list) else [negatives]
    state = torch.load("r/checkpoints/last.pt", weights_only=True)["method"]
    return recipe, state


def names(recipe: dict[str, Any]) -> dict[str, Any]:
    used = {role: recipe[role]["use"] for role in ("views", "encoder", "target", "loss")}
    return {**used, "negatives": [table["use"] for table in recipe["negatives"]]}


def moved(state: dict[str, torch.Tensor]) -> bool:
    """Whether a momentum encoder lags behind the online one."""
    mine = state["components.target.network.trunk.conv1.weight"]
    return not torch.equal(mine, state["components.encoder.trunk.conv1.weight"])


def took_in(state: dict[str, torch.Tensor], keys: int) -> bool:
    """Whether a queue of 24 took in so many keys."""
    rows = state["components.negatives.rows"]
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(24))
    return int(state["components.negatives.pointer"]) == keys % 24


def test_simclr_with_mocos_queue_and_momentum_target(
    run: Run, idx: Path, tiny: tuple[str, ...]
) -> None:
    recipe, state = train(run, idx, tiny, "simclr", *QUEUE, "--use", "target=momentum")
    assert names(recipe) == {
        "views": "simclr",
        "encoder": "projection",
        "target": "momentum",
        "negatives": ["queue"],
        "loss": "info-nce",
    }
    assert recipe["target"]["decay"] == 0.999 and recipe["negatives"][0]["size"] == 24
    # Two steps of eight images, both views of which are keys.
    assert moved(state) and took_in(state, 2 * 2 * 8)
    facts = json.loads(Path("r/run.json").read_text(encoding="utf-8"))
    assert set(facts["packages"]) == {"coview", "coview-simclr", "coview-moco", "coview-cpc"}


def test_moco_v2_with_in_batch_negatives(run: Run, idx: Path, tiny: tuple[str, ...]) -> None:
    changes = ("--use", "negatives=in-batch", "--set", "encoder.hidden=32")
    recipe, state = train(run, idx, tiny, "moco-v2", *changes)
    assert names(recipe)["negatives"] == ["in-batch"] and names(recipe)["target"] == "momentum"
    assert moved(state) and not [key for key in state if key.startswith("components.negatives")]


def test_byol_with_infonce_and_a_queue(run: Run, idx: Path, tiny: tuple[str, ...]) -> None:
    recipe, state = train(run, idx, tiny, "byol", *BYOL, *QUEUE, "--use", "loss=info-nce")
    assert names(recipe) == {
        "views": "byol",
        "encoder": "predictor",
        "target": "momentum",
        "negatives": ["queue"],
        "loss": "info-nce",
    }
    assert moved(state) and took_in(state, 2 * 2 * 8)
    assert [key for key in state if key.startswith("components.encoder.predictor")]
    assert not [key for key in state if key.startswith("components.target.network.predictor")]


def test_instdisc_with_infonce(run: Run, idx: Path, tiny: tuple[str, ...]) -> None:
    recipe, state = train(run, idx, tiny, "instdisc", "--use", "loss=info-nce")
    assert names(recipe)["loss"] == "info-nce"
    assert recipe["loss"]["temperature"] == 0.1
    bank = state["components.target.rows"]
    lengths = bank.norm(dim=1)
    # 32 of 48 images were visited: their rows have unit length.
    assert bank.shape == (48, 128) and int(torch.isclose(lengths, torch.ones(48)).sum()) >= 32


def test_instdiscs_bank_as_target_beside_mocos_queue(
    run: Run, idx: Path, tiny: tuple[str, ...]
) -> None:
    recipe, state = train(run, idx, tiny, "instdisc", *QUEUE)
    assert names(recipe)["target"] == "memory-bank" and names(recipe)["negatives"] == ["queue"]
    assert state["components.target.rows"].shape == (48, 128)
    assert took_in(state, 2 * 8)


@pytest.mark.parametrize("written", ["in-batch,queue", "in-batch, queue"])
def test_several_sources_of_negatives(
    run: Run, idx: Path, tiny: tuple[str, ...], written: str
) -> None:
    changes = ("--use", f"negatives={written}", "--set", "negatives.queue.size=24")
    recipe, state = train(
        run, idx, tiny, "simclr", *changes, "--set", "negatives.in-batch.views=key"
    )
    batch, queue = recipe["negatives"]
    assert batch == {"use": "in-batch", "views": "key"}
    assert queue["use"] == "queue" and queue["size"] == 24
    (rows,) = (value for key, value in state.items() if key.endswith("queue.rows"))
    assert rows.shape == (24, 128)
    run("train", "r/recipe.toml", "--out", "again", "--device", "cpu", "--no-evaluate")
    again = torch.load("again/checkpoints/last.pt", weights_only=True)["method"]
    assert all(torch.equal(state[key], again[key]) for key in state | again)


def test_a_source_adds_to_the_loss(run: Run, idx: Path, tiny: tuple[str, ...]) -> None:
    """The first loss with the queue beside the batch is the larger sum's logarithm."""
    first = {}
    for number, sources in enumerate(("in-batch", "queue", "in-batch,queue")):
        options = ("--data", f"idx:{idx}", "--out", number, *tiny, "--max-steps", 1)
        run("train", "simclr", *options, "--no-evaluate", "--use", f"negatives={sources}")
        line = Path(str(number), "metrics.jsonl").read_text(encoding="utf-8")
        first[sources] = json.loads(line)["loss"]
    both = first["in-batch,queue"]
    assert both > first["in-batch"] and both > first["queue"]
    # exp(loss) = 1 + sum of the negatives' odds, if every row had the same.
    assert both < math.log(math.exp(first["in-batch"]) + math.exp(first["queue"]))


def test_parts_may_be_named_by_package_and_role_in_plural(
    run: Run, idx: Path, tiny: tuple[str, ...]
) -> None:
    changes = ("--use", "targets=coview-moco:momentum", "--set", "targets.decay=0.5")
    recipe, state = train(run, idx, tiny, "simclr", *changes)
    assert recipe["target"]["use"] == "coview-moco:momentum" and recipe["target"]["decay"] == 0.5
    assert moved(state)


REFUSED = {
    "NCE without negatives": (
        ("instdisc", "--use", "loss=nce", "--use", "negatives=none"),
        "loss 'nce' needs negatives: it tells each positive from noise samples.",
    ),
    "NCE in a method that has none": (
        ("byol", "--use", "loss=nce"),
        "loss 'nce' needs negatives: it tells each positive from noise samples.",
    ),
    "InfoNCE without negatives": (
        ("moco", "--use", "negatives=none"),
        "loss 'info-nce' needs negatives: it compares the positive with them.",
    ),
    "a queue of another width": (
        ("moco", "--set", "negatives.dim=64"),
        "negatives 'queue' keeps vectors of width 64, but the encoder's have width 128",
    ),
    "a shared target with views of which one is the query": (
        ("moco", "--use", "target=shared"),
        "target 'shared' takes its keys from the online network, which encodes only views [0]",
    ),
    "a shared target with one view": (
        ("simclr", "--use", "views=instdisc"),
        "target 'shared' would compare a view with itself",
    ),
    "a momentum encoder beside an encoder that predicts patches": (
        ("cpc", "--use", "target=momentum"),
        "target 'momentum' gives a key for each view, but encoder 'autoregressive' does "
        "not compare views. Use --use target=shared.",
    ),
    "a memory bank beside an encoder that predicts patches": (
        ("cpc", "--use", "target=memory-bank"),
        "target 'memory-bank' gives a key for each view, but encoder 'autoregressive' does "
        "not compare views. Use --use target=shared.",
    ),
    "two settings of one component": (
        ("instdisc", "--set", "negatives.draws=3"),
        "negatives 'memory-bank' is the same component as the target. Set target.draws instead.",
    ),
    "two components for one role": (
        ("moco", "--use", "target=momentum,shared"),
        "target takes one component, not 2.",
    ),
    "a source twice": (
        ("moco", "--use", "negatives=queue,queue"),
        "negatives names 'queue' twice. Settings go by name: for a second one, register it under "
        "another name.",
    ),
    "the target's network where it has none": (
        ("simclr", "--set", "evaluates=target"),
        "but target 'shared' of package coview has no network of its own to evaluate",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused_before_training(
    refused: Run, idx: Path, tiny: tuple[str, ...], case: str
) -> None:
    arguments, reason = REFUSED[case]
    options = ("--data", f"idx:{idx}", "--out", "r", *tiny, "--max-steps", 1)
    (problem,) = refused("train", *arguments, *options)
    assert reason in problem
    # Nothing is left that would stand in the way of the next try.
    assert not Path("r/run.json").exists() and not Path("r/recipe.toml").exists()


@pytest.mark.parametrize("case", ["NCE without negatives", "two settings of one component"])
def test_names_and_types_are_refused_by_a_dry_run(refused: Run, idx: Path, case: str) -> None:
    arguments, reason = REFUSED[case]
    (problem,) = refused("train", *arguments, "--data", f"idx:{idx}", "--dry-run")
    assert reason in problem


def test_negatives_that_are_kept_for_nothing_are_said_so(
    run: Run, idx: Path, tiny: tuple[str, ...]
) -> None:
    options = ("--data", f"idx:{idx}", *tiny, "--dry-run")
    text = run("train", "byol", *options, "--use", "negatives=queue").stdout
    assert "note: loss 'regression' ignores negatives: queue has no effect." in text


def test_a_recipe_made_from_another_takes_the_presets_that_still_fit() -> None:
    """The preset's temperature is InfoNCE's; a loss of another name is not given it."""
    own = attrs.evolve(coview.recipe("simclr"), loss=coview.Use("regression"))
    resolved = configure(own, None, Changes(preset="small"), "test")
    assert resolved.part("loss").name == "regression"
    assert resolved.part("backbone").name == "resnet18"
    assert resolved.part("views").settings.blur_p == 0
