"""coview's own ways to evaluate weights (group ``coview.protocols``), and their settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from coview.components import EvaluationProtocol, declared
from coview.errors import PluginError, RequestError
from coview.evaluation.published import find_vote
from coview.evaluation.subject import Subject
from coview.optim.protocols import Neighbours
from coview.registry import find
from coview.settings import Validator, between, ge, gt, one_of, setting, structure

OWN = ("knn", "linear", "finetune", "retrieval")
Numbers = float | tuple[float, ...] | None
TEMPERATURE = 0.07


def _each(check: Validator) -> Validator:
    """Check each of several values, or the one."""

    def apply(instance: Any, attribute: attrs.Attribute[Any], value: Any) -> None:
        for item in value if isinstance(value, tuple) else (value,):
            if item is not None:
                check(instance, attribute, item)

    return apply


def _all(values: Any) -> tuple[Any, ...]:
    """Return one value, several or none as a tuple."""
    if values is None:
        return ()
    return values if isinstance(values, tuple) else (values,)


@attrs.frozen
class KNNSettings:
    """Settings of ``knn``."""

    k: int | None = setting(
        None,
        "neighbours that vote; none: 200, or with fewer than 1,000 training images as many as the "
        "smallest class has",
        ge(1),
    )
    vote: str = setting(
        "weighted",
        "weighted: nearer neighbours count more; plain: all alike",
        one_of("weighted", "plain"),
    )
    temperature: float | None = setting(
        None, f"temperature of the weighted vote; none: {TEMPERATURE}", gt(0)
    )
    features: str = setting(
        "backbone",
        "what is compared: the backbone's features, or the projection, as in training",
        one_of("backbone", "projection"),
    )


class KNN(EvaluationProtocol):
    """A vote of the nearest training images.

    Where nothing is set, the vote that the method's authors published (table ``knn`` of the
    recipe) is measured too, as ``published``.
    """

    evaluate_settings = KNNSettings
    knn_settings = Neighbours

    @staticmethod
    def evaluate(subject: Subject, settings: KNNSettings) -> Mapping[str, Any]:
        """Return top-1 and top-5; see :mod:`coview.evaluation.knn`."""
        plain = settings.vote == "plain"
        if plain and settings.temperature is not None:
            raise RequestError("A plain vote has no temperature: leave out --temperature.")
        temperature = None if plain else settings.temperature or TEMPERATURE
        votes: list[tuple[int | None, float | None]] = [(settings.k, temperature)]
        own = find_vote(subject.network.card) if settings == KNNSettings() else None
        if own is not None and own.features == settings.features:
            votes.append((own.k, own.temperature))
        common, *more = _votes(subject, settings.features, votes)
        if own is not None and not more:
            more = _votes_of_run(subject, own)
        if own is None or not more:
            return common
        return {**common, "published": {**more[0], "source": own.source}}


def _votes_of_run(subject: Subject, own: Neighbours) -> list[dict[str, Any]]:
    """Return the published vote on projections, which only a run has."""
    if (subject.weights / "recipe.toml").is_file():
        return _votes(subject, own.features, [(own.k, own.temperature)])
    if subject.say is not None:
        subject.say(
            f"{own.source} compares projections, which these weights lack; name the run's "
            "directory to measure that too."
        )
    return []


def _votes(
    subject: Subject, features: str, votes: Sequence[tuple[int | None, float | None]]
) -> list[dict[str, Any]]:
    from coview.evaluation.knn import evaluate_votes

    network: Any = subject.network
    if features == "projection":
        from coview.evaluation.projection import projecting

        network = projecting(subject.weights, subject.network).to(subject.device)
    found = evaluate_votes(network, subject.data, votes, **subject.options)
    if features == "projection":
        found = [attrs.evolve(one, features=features) for one in found]
    return [one.as_dict() for one in found]


@attrs.frozen(eq=False)
class LinearSettings:
    """Settings of ``linear``."""

    protocol: str = setting(
        "grid",
        "grid: search settings on features computed once; paper: the published probe of the run's "
        "method; or a method's name, for its probe",
    )
    lr: Numbers = setting(
        None, "learning rate at a batch size of 256; with grid one or several", _each(gt(0))
    )
    weight_decay: Numbers = setting(None, "weight decay; with grid one or several", _each(ge(0)))
    epochs: int | None = setting(
        None, "passes over the training images; none: 100, or as published", ge(1)
    )
    head_batch_size: int | None = setting(
        None, "batch size in training the classifier; none: 256, or as published", ge(1)
    )
    seed: int = setting(0, "random seed")
    save: Any = setting(None, "file to write backbone and classifier to")


class Linear(EvaluationProtocol):
    """A linear classifier on the frozen backbone."""

    evaluate_settings = LinearSettings

    @staticmethod
    def evaluate(subject: Subject, settings: LinearSettings) -> Mapping[str, Any]:
        """Return accuracies; see :mod:`coview.evaluation.linear` and ``classifier``."""
        rates, decays = _all(settings.lr), _all(settings.weight_decay)
        if settings.protocol != "grid" and max(len(rates), len(decays)) > 1:
            raise RequestError(
                "Only --protocol grid accepts several values of --lr or --weight-decay."
            )
        common = {"seed": settings.seed, "save": _path(settings.save), **subject.options}
        if settings.protocol != "grid":
            changes = {
                "lr": next(iter(rates), None),
                "weight_decay": next(iter(decays), None),
                "epochs": settings.epochs,
                "batch_size": settings.head_batch_size,
            }
            return _published(subject, settings.protocol, changes, common)
        from coview.evaluation.linear import LEARNING_RATES, WEIGHT_DECAYS, evaluate_linear

        return evaluate_linear(
            subject.network,
            subject.data,
            learning_rates=rates or LEARNING_RATES,
            weight_decays=decays or WEIGHT_DECAYS,
            epochs=settings.epochs or 100,
            head_batch_size=settings.head_batch_size or 256,
            **common,
        ).as_dict()


def _published(
    subject: Subject, name: str, changes: dict[str, Any], common: dict[str, Any]
) -> Mapping[str, Any]:
    from coview.evaluation.published import find_probe
    from coview.optim.protocols import Protocol, changed

    way, settings = find_probe(name, subject.network.card)
    given = {key: value for key, value in changes.items() if value is not None}
    if isinstance(settings, Protocol):
        settings = changed(settings, **given)
    elif given:
        written = {"batch_size": "head-batch-size", "weight_decay": "weight-decay"}
        listed = ", ".join(f"--{written.get(key, key)}" for key in given)
        raise RequestError(f"This protocol does not train in steps: leave out {listed}.")
    result: dict[str, Any] = way.probe(subject.network, subject.data, settings, **common).as_dict()
    return result


def _path(save: Any) -> Path | None:
    return None if save is None else Path(save)


@attrs.frozen(eq=False)
class FinetuneSettings:
    """Settings of ``finetune``."""

    labels: str = setting("100%", "training labels to use: 1%, 10%, ... or N-per-class")
    start: str = setting(
        "head.0",
        "head.N: keep the first N layers of the run's projection head; 0: only the backbone "
        "(on the command line: --from)",
    )
    protocol: str | None = setting(
        None,
        "settings to use: paper (published by the run's method) or a method's name; none: paper, "
        "or coview's own if none are published",
    )
    lr: float | None = setting(
        None, "learning rate of all layers, at a batch size of 256; none: as published", gt(0)
    )
    head_lr: float | None = setting(
        None, "learning rate of the new classifier, if different", gt(0)
    )
    layer_decay: float = setting(
        1.0,
        "each layer's learning rate is this times that of the layer above",
        gt(0),
        between(0, 1),
    )
    weight_decay: float | None = setting(None, "weight decay; none: as published", ge(0))
    epochs: int | None = setting(None, "passes over the labelled images; none: as published", ge(1))
    train_batch_size: int | None = setting(
        None, "batch size in training; none: as published", ge(1)
    )
    save: Any = setting(None, "file to write backbone and classifier to")
    seed: int = setting(0, "random seed, also of the subset")


class Finetune(EvaluationProtocol):
    """The whole network, trained with some of the labels."""

    evaluate_settings = FinetuneSettings

    @staticmethod
    def evaluate(subject: Subject, settings: FinetuneSettings) -> Mapping[str, Any]:
        """Return accuracies; see :mod:`coview.evaluation.finetune`."""
        from coview.evaluation.finetune import starting_network
        from coview.evaluation.published import find_finetuning
        from coview.optim.protocols import changed

        data = subject.data
        way, published = find_finetuning(settings.protocol, subject.network.card, settings.labels)
        chosen = changed(
            published,
            lr=settings.lr,
            head_lr=settings.head_lr,
            weight_decay=settings.weight_decay,
            epochs=settings.epochs,
            batch_size=settings.train_batch_size,
        )
        head, width = starting_network(subject.weights, subject.network, settings.start)
        result: dict[str, Any] = way.finetune(
            subject.network,
            head,
            width,
            data,
            chosen,
            labels=settings.labels,
            start=settings.start,
            layer_decay=settings.layer_decay,
            seed=settings.seed,
            save=_path(settings.save),
            **subject.options,
        ).as_dict()
        return result


@attrs.frozen(eq=False)
class RetrievalSettings:
    """Settings of ``retrieval``."""

    query: Any = setting(None, "use all images of this data set as queries")
    gallery: Any = setting(None, "search all images of this data set, which may be the query's")
    match: str = setting(
        "label",
        "images match by class (label), or by file name without folder and ending (name)",
        one_of("label", "name"),
    )
    k: int | tuple[int, ...] = setting(
        (1, 5, 10), "report recall@k for each of these", _each(ge(1))
    )


class Retrieval(EvaluationProtocol):
    """Recall@k and mean average precision of image search by cosine."""

    evaluate_settings = RetrievalSettings

    @staticmethod
    def evaluate(subject: Subject, settings: RetrievalSettings) -> Mapping[str, Any]:
        """Return recalls and mean average precision; see :mod:`coview.evaluation.retrieval`."""
        query, gallery = settings.query, settings.gallery
        if (query is None) != (gallery is None):
            raise RequestError("Give both --query and --gallery, or neither.")
        if query is not None and subject.given is not None:
            raise RequestError("Give either --data, or --query and --gallery.")
        import torch

        from coview.evaluation.embeddings import embed, readable
        from coview.evaluation.retrieval import identities, retrieve

        own = subject.data if query is None else subject.load(query)
        other = own if query is None or _same(query, gallery) else subject.load(gallery)
        parts = ("test", "train") if query is None else ("all", "all")
        queries, searched = (
            readable(embed(subject.network, each, which, **subject.options))
            for each, which in zip((own, other), parts, strict=True)
        )
        result = retrieve(
            torch.from_numpy(queries["embeddings"]).to(subject.device),
            torch.from_numpy(searched["embeddings"]).to(subject.device),
            identities(queries, own, settings.match),
            identities(searched, other, settings.match),
            match=settings.match,
            ks=tuple(dict.fromkeys(_all(settings.k))),
            same=query is not None and other is own,
        ).as_dict()
        return result if query is None else {**result, "gallery_data": other.name}


def _same(query: Any, gallery: Any) -> bool:
    """Whether two arguments mean one data set."""
    named = all(isinstance(data, (str, os.PathLike)) for data in (query, gallery))
    return query is gallery or (named and os.fspath(query) == os.fspath(gallery))


Run = Callable[[Subject], Mapping[str, Any]]


def prepared(name: str, given: Mapping[str, Any]) -> tuple[str, Run]:
    """Find a registered way to evaluate and check its settings, before anything is loaded.

    A protocol that has no ``evaluate`` of its own is used as a probe.

    Args:
        name: ``NAME`` or ``PACKAGE:NAME`` in the group ``coview.protocols``.
        given: its settings; for a probe ``seed`` and ``save`` too.

    Returns:
        The protocol's name as it is registered, and a function that evaluates a subject and
        returns plain values.

    Raises:
        RequestError: there is no such protocol, or with every problem found in ``given``.
        PluginError: the protocol can neither evaluate nor probe.
    """
    entry = find("protocols", name)
    name, way = entry.name, entry.load()
    kind = declared(way, EvaluationProtocol, "evaluate_settings")
    if kind is not None:
        settings = _structured(kind, given, name)
        return name, lambda subject: way.evaluate(subject, settings)
    kind = declared(way, EvaluationProtocol, "probe_settings")
    if kind is None:
        raise PluginError(f"Evaluation protocol {name!r} can neither evaluate nor probe.")
    others = {key: value for key, value in given.items() if key not in ("seed", "save")}
    settings = _structured(kind, others, name)
    seed, save = given.get("seed", 0), _path(given.get("save"))

    def probe(subject: Subject) -> Mapping[str, Any]:
        options = {"seed": seed, "save": save, **subject.options}
        found: Mapping[str, Any] = way.probe(
            subject.network, subject.data, settings, **options
        ).as_dict()
        return found

    return name, probe


def _structured(kind: type, given: Mapping[str, Any], name: str) -> Any:
    made, problems = structure(kind, given, "", name)
    if problems:
        raise RequestError(*problems)
    return made
