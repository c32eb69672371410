"""What is sent to the Hub for a run: weights, timm's configuration, recipe and model card."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import tomli_w
from huggingface_hub import ModelCard, ModelCardData
from timm.models import resnet
from timm.models._hub import save_config_for_hf

from coview.errors import RequestError
from coview.evaluation.results import facts_of, recipe_of, rows
from coview.weights.card import WeightCard
from coview.weights.convert import ship
from coview.weights.elsewhere import in_stock, loading
from coview.weights.exported import ExportedBackbone
from coview.weights.open import open_weights

WEIGHTS = "model.safetensors"
CONFIG = "config.json"
RECIPE = "recipe.toml"
CARD = "README.md"
TOLD = ("seed", "precision", "preset")
"""Run settings that are sent: others name places of this machine, or are of no use elsewhere."""


def write(run: Path, repository: str, licence: str, folder: Path) -> tuple[str, ...]:
    """Write all files into a folder; return their names.

    Args:
        run: a run's directory.
        repository: ``USER/NAME``.
        licence: as the Hub calls it, ``apache-2.0``.
        folder: is there, and empty.

    Raises:
        RequestError: there is no run, or it has no weights.
    """
    facts, recipe = facts_of(run), recipe_of(run)
    exported = open_weights(run).network
    exported.card = _without_places(exported.card)
    ship(exported, folder / WEIGHTS, "safetensors", "timm")
    plain = loads_in_timm(exported)
    if plain:
        save_config_for_hf(
            exported.backbone,
            str(folder / CONFIG),
            model_config={"pretrained_cfg": preprocessing(exported.card)},
        )
    (folder / RECIPE).write_text(tomli_w.dumps(sendable(recipe, facts)), encoding="utf-8")
    card = model_card(run, repository, licence, exported, plain, facts, recipe)
    card.save(folder / CARD)
    return tuple(sorted(path.name for path in folder.iterdir()))


def loads_in_timm(exported: ExportedBackbone) -> bool:
    """Whether ``timm.create_model`` makes this very network: not if its first layer was changed."""
    if not in_stock(exported.card) or not hasattr(exported.backbone, "pretrained_cfg"):
        return False
    small = exported.card.settings.get("stem") == "3x3"
    return not (small and isinstance(exported.backbone, resnet.ResNet))


def preprocessing(card: WeightCard) -> dict[str, Any]:
    """Return timm's words for what a network takes."""
    return {
        "input_size": (card.channels, card.size, card.size),
        "mean": card.mean,
        "std": card.std,
        "crop_pct": card.size / card.image_size,
        "crop_mode": "center",
        "interpolation": "bilinear",
    }


def sendable(recipe: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe without the places of this machine."""
    run = recipe.get("run", {})
    kept = {name: run[name] for name in TOLD if name in run}
    found = {name: _named(value) for name, value in recipe.items() if name != "run"}
    return {**found, "run": {"data": told_data(facts, short=True), **kept}}


def _named(value: Any) -> Any:
    """Return a table whose component, if it is code of one's own, has only its file's name."""
    if isinstance(value, list):
        return [_named(each) for each in value]
    if isinstance(value, dict) and isinstance(value.get("use"), str):
        return {**value, "use": _short(value["use"])}
    return value


def _short(text: str) -> str:
    """Return ``FILE.py:NAME`` without the folders that the file lies in."""
    return text.rpartition("/")[2] if ".py:" in text else text


def _without_places(card: WeightCard) -> WeightCard:
    parts = card.parts and {
        name: {**part, "use": _short(part["use"])} if "use" in part else part
        for name, part in card.parts.items()
    }
    return attrs.evolve(card, code=card.code and _short(card.code), parts=parts)


def told_data(facts: Mapping[str, Any], short: bool = False) -> str:
    """Return the data's name, without the folders of this machine that they lie in."""
    data = facts["data"]
    kind, _, path = str(data["name"]).partition(":")
    name = f"{kind}:{Path(path).name}" if path and not is_of_hub(data["name"]) else data["name"]
    return str(name) if short else f"{name}, {data['train_images']} training images"


def is_of_hub(name: str) -> bool:
    """Whether data are a data set of the Hub, and no local path."""
    kind, _, path = name.partition(":")
    where = path.partition(",")[0].partition("@")[0]
    return kind == "hf" and not Path(where).expanduser().exists() and where.count("/") <= 1


def model_card(
    run: Path,
    repository: str,
    licence: str,
    exported: ExportedBackbone,
    plain: bool,
    facts: Mapping[str, Any],
    recipe: Mapping[str, Any],
) -> ModelCard:
    """Return the page of a repository.

    Args:
        run, repository, licence: see :func:`write`.
        exported: the network.
        plain: whether timm makes it.
        facts, recipe: what the run says of itself.
    """
    card, data = exported.card, facts["data"]["name"]
    known = ModelCardData(
        license=licence,
        library_name="timm" if plain else "coview",
        pipeline_tag="image-feature-extraction",
        tags=["coview", "self-supervised", facts["method"]],
        datasets=[data[3:].partition(",")[0].partition("@")[0]] if is_of_hub(data) else None,
    )
    note, lines = how_to_load(exported, repository, plain)
    made: ModelCard = ModelCard.from_template(
        known,
        template_str=_template(),
        name=repository.partition("/")[2],
        repository=repository,
        backbone=card.backbone,
        method=facts["method"],
        summary=recipe.get("summary"),
        paper=recipe.get("paper"),
        note=note,
        lines="\n".join(lines),
        size=card.size,
        delivered=card.image_size,
        channels=card.channels,
        mean=_numbers(card.mean),
        std=_numbers(card.std),
        data=told_data(facts),
        epochs=_epochs(run, recipe),
        batch_size=recipe.get("batch_size"),
        seed=facts["seed"],
        precision=facts["precision"],
        versions=", ".join(f"{k} {v}" for k, v in {**facts["packages"], **_torch(facts)}.items()),
        numbers=list(_measured(run)),
    )
    return made


def how_to_load(
    exported: ExportedBackbone, repository: str, plain: bool
) -> tuple[str | None, tuple[str, ...]]:
    """Return a sentence to read first, or None, and the lines of Python that load the weights."""
    if plain:
        return None, (
            "import timm",
            f'net = timm.create_model("hf-hub:{repository}", pretrained=True).eval()',
            "look = timm.data.create_transform(**timm.data.resolve_model_data_config(net))"
            "  # features: net(look(image)[None])",
        )
    found = loading(exported, Path(WEIGHTS), "safetensors", "timm")
    if not in_stock(exported.card):
        local, there = repr(WEIGHTS), repr(f"hf:{repository}")
        return found.note, tuple(line.replace(local, there) for line in found.lines)
    there = f"hf_hub_download({repository!r}, {WEIGHTS!r})"
    lines = tuple(line.replace(repr(WEIGHTS), there) for line in found.lines)
    return found.note, ("from huggingface_hub import hf_hub_download", *lines)


def _template() -> str:
    return (importlib.resources.files("coview_hub") / "card.md").read_text(encoding="utf-8")


def _epochs(run: Path, recipe: Mapping[str, Any]) -> str:
    planned, done = recipe.get("epochs"), [row["run_epochs"] for row in rows([run])[:1]]
    return str(planned) if not done or done[0] == planned else f"{done[0]} of {planned} planned"


def _torch(facts: Mapping[str, Any]) -> dict[str, str]:
    return {"torch": facts["libraries"]["torch"]}


def _numbers(values: tuple[float, ...]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"


def _measured(run: Path) -> Iterator[dict[str, Any]]:
    """Yield the last result of each evaluation on each data set that has an accuracy."""
    last: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in rows([run]):
        what = str(row.get("protocol") or row["evaluation"])
        if isinstance(row.get("top1"), float):
            named = told_data({"data": {"name": row["data"]}}, short=True)
            labels = f", {row['labels']} of the labels" if row.get("labels") else ""
            last[what + labels, named] = {
                "what": what + labels,
                "data": named,
                "top1": f"{100 * row['top1']:.1f} %",
                "test_images": row.get("test_images", "the"),
            }
    yield from last.values()


def has_weights(run: Path) -> None:
    """Refuse what is no finished run.

    Raises:
        RequestError: it is not a run, or it was not exported yet.
    """
    facts_of(run)
    if not (run / "backbone.safetensors").is_file():
        raise RequestError(f"The run {run} has no weights yet: they are written at its end.")
