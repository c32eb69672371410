"""Find published protocols: of given weights, or of a method by name."""

from __future__ import annotations

from typing import Any

import attrs

from coview.components import EvaluationProtocol, declared
from coview.errors import CoviewError, PluginError, RequestError, unknown
from coview.optim.protocols import GENERIC, FineTuning, Neighbours, Protocol, SupportVectors
from coview.recipes.recipe import Use, find_recipe, method_names
from coview.registry import find
from coview.settings import structure
from coview.weights.card import WeightCard

OWN = "paper"
"""Name of the protocol published by the weights' own method."""


class SGD(EvaluationProtocol):
    """A linear classifier trained by SGD on augmented images, as in most papers.

    ``linear`` computes each image's features once, without augmentation, and is faster. As a
    recipe's ``finetune``, this trains the whole network in the same way.
    """

    probe_settings = Protocol
    finetune_settings = FineTuning

    @staticmethod
    def probe(network: Any, data: Any, settings: Any, **options: Any) -> Any:
        """Train a linear classifier on the frozen network; see :func:`evaluate_probe`."""
        from coview.evaluation.classifier import evaluate_probe

        return evaluate_probe(network, data, settings, **options)

    @staticmethod
    def finetune(
        network: Any, head: Any, width: int, data: Any, settings: Any, **options: Any
    ) -> Any:
        """Train the whole network; see :func:`coview.evaluation.finetune.finetune`."""
        from coview.evaluation.finetune import finetune

        return finetune(network, head, width, data, settings, **options)


class SVM(EvaluationProtocol):
    """A linear support vector machine on features of the frozen network."""

    probe_settings = SupportVectors

    @staticmethod
    def probe(network: Any, data: Any, settings: Any, **options: Any) -> Any:
        """Fit a support vector machine; see :func:`coview.evaluation.svm.evaluate_svm`."""
        from coview.evaluation.svm import evaluate_svm

        return evaluate_svm(network, data, settings, **options)


def find_probe(name: str, card: WeightCard) -> tuple[type[EvaluationProtocol], Any]:
    """Return a linear probe and its published settings.

    Args:
        name: a method's name; ``paper``: the weights' own method.
        card: the weights' card.

    Raises:
        RequestError: there is no such method, or it published no probe.
        PluginError: the method's package is broken.
    """
    use = _find("probe", name, card)
    if use.name != "none":
        return _structured("probe", use)
    of = repr(card.method) if name == OWN else repr(name)
    raise RequestError(
        f"No published linear probe is known for {of}. Name one: --protocol "
        f"{', '.join(_publishing('probe'))}."
    )


def find_finetuning(
    name: str | None, card: WeightCard, labels: str
) -> tuple[type[EvaluationProtocol], Any]:
    """Return settings for fine-tuning with a share of the labels.

    Args:
        name: a method's name; ``paper``: the weights' own method; None: the same, or
            coview's own settings if none were published (``source`` says so).
        card: the weights' card.
        labels: a value of ``--labels``; 1 % may have its own learning rates.

    Raises:
        RequestError, PluginError: as :func:`find_probe`.
    """
    use = _find("finetune", name or OWN, card)
    if use.name != "none":
        way, settings = _structured("finetune", use)
        few = settings.for_labels(labels) if isinstance(settings, FineTuning) else settings
        return way, few
    if name is None:
        source = f"{GENERIC.source}: none is published for {card.method!r}"
        return SGD, attrs.evolve(GENERIC, source=source).for_labels(labels)
    raise RequestError(
        f"No published fine-tuning is known for {card.method if name == OWN else name!r}. "
        f"Name one: --protocol {', '.join(_publishing('finetune'))}."
    )


def find_vote(card: WeightCard) -> Neighbours | None:
    """Return the vote of neighbours that the authors of the weights' method published, if any."""
    use = _find("knn", OWN, card)
    if use.name == "none":
        return None
    _, settings = _structured("knn", use)
    return settings if isinstance(settings, Neighbours) else None


def _find(table: str, name: str, card: WeightCard) -> Use:
    if name == OWN:
        if card.published is not None:
            kept = dict(card.published.get(table, {"use": "none"}))
            return Use(kept.pop("use"), **kept)
        name = card.method
        if name not in method_names():
            return Use("none")
    elif name.rpartition(":")[2] not in method_names():
        others = ("grid", OWN) if table == "probe" else (OWN,)
        raise RequestError(unknown("protocol", name, (*others, *_publishing(table))))
    use: Use = getattr(find_recipe(name), table)
    return use


def _structured(table: str, use: Use) -> tuple[type[EvaluationProtocol], Any]:
    way: type[EvaluationProtocol] = find("protocols", use.name).load()
    settings = declared(way, EvaluationProtocol, f"{table}_settings")
    if settings is None:
        raise CoviewError(f"Evaluation protocol {use.name!r} cannot be used for {table}.")
    made, problems = structure(settings, use.settings, table)
    if problems:
        raise CoviewError(" ".join(problems))
    return way, made


def _publishing(table: str) -> list[str]:
    """Return the methods that published such a protocol, ignoring broken packages."""
    found = []
    for name in method_names():
        try:
            if getattr(find_recipe(name), table).name != "none":
                found.append(name)
        except (PluginError, RequestError):
            continue
    return found
