"""What data are of, and what views take: images, unless they say something else.

A source of something else has an attribute ``gives`` (``"signals"``, say) and
views for it an attribute ``takes`` that says the same. So that a refusal can say
what would fit, such a source may name a method in ``example_method``, and such
views a source in ``example_data``.
"""

from __future__ import annotations

from typing import Any

from coview.errors import RequestError

IMAGES = "images"


def refuse_other_kind(views: Any, name: str, source: Any) -> None:
    """Refuse data that these views do not take.

    Args:
        views: the component's class.
        name: the component's.
        source: of the data.

    Raises:
        RequestError: with what would fit, as far as the two say it.
    """
    takes, gives = getattr(views, "takes", IMAGES), getattr(source, "gives", IMAGES)
    if takes == gives:
        return
    wanted = (
        f"--data {views.example_data}" if hasattr(views, "example_data") else f"data of {takes}"
    )
    ways = [wanted if takes != IMAGES else "a data set of images"]
    if hasattr(source, "example_method"):
        ways.append(f"the method {source.example_method}")
    raise RequestError(
        f"views {name!r} take {takes}, but the data are {gives}: use {', or '.join(ways)}."
    )
