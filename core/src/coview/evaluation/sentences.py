"""A result of an evaluation in words, whoever registered the evaluation."""

from __future__ import annotations

from typing import Any

from coview.evaluation.metrics import percentages

TITLES = {"knn": "kNN ", "linear": "Linear ", "finetune": "Fine-tuned ", "retrieval": ""}


def sentence(evaluation: str, result: dict[str, Any]) -> str:
    """Return what was measured, on what, and how.

    Args:
        evaluation: its name, such as ``knn``.
        result: the values that are printed with ``--json``.
    """
    title = TITLES.get(evaluation, f"{evaluation}: ")
    measured, images = _measured(result), _images(result)
    details = ", ".join(part for part in (result.get("protocol"), *_how(result), images) if part)
    own = result.get("published")
    told = "" if own is None else f"\nAs published: {_published(own)}"
    return f"{title}{measured} on {result['data']} ({details}){told}"


def _published(result: dict[str, Any]) -> str:
    details = ", ".join((result["protocol"], *_how(result)))
    return f"{_measured(result)} ({details}; {result['source']})"


def _measured(result: dict[str, Any]) -> str:
    if "top1" in result or "classes_measured" in result:
        return percentages(result)
    shares = {f"recall@{k}": result[f"recall_at_{k}"] for k in recalled(result)}
    if "mean_average_precision" in result:
        shares["mean average precision"] = result["mean_average_precision"]
    if shares:
        return ", ".join(f"{name} {100 * share:.1f} %" for name, share in shares.items())
    numbers = {key: value for key, value in result.items() if type(value) in (int, float)}
    return ", ".join(f"{key} {value:.4g}" for key, value in numbers.items()) or "done"


def recalled(result: dict[str, Any]) -> list[int]:
    """Return each k of the recalls in a result."""
    prefix = "recall_at_"
    return [int(key.removeprefix(prefix)) for key in result if key.startswith(prefix)]


def _how(result: dict[str, Any]) -> list[str]:
    if "k" in result:
        vote = result.get("temperature")
        told = [f"k = {result['k']}", *([] if vote is None else [f"vote temperature {vote}"])]
        return [*told, *([f"of the {result['features']}"] if result.get("features") else [])]
    if "cost" in result:
        return [f"C = {result['cost']:g}"]
    if "lr" in result:
        return [
            f"lr {result['lr']:g}, weight decay {result['weight_decay']:g}, "
            f"{result['epochs']} epochs, batch {result['batch_size']}"
        ]
    return ["not trained in steps"] if "top1" in result else []


def _images(result: dict[str, Any]) -> str:
    if "queries" in result:
        return (
            f"{result['queries']} queries, {result['without_match']} more without a match, "
            f"{result['gallery']} images searched"
        )
    if "test_images" not in result:
        return ""
    return f"{result['train_images']} training and {result['test_images']} test images"
