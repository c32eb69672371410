"""Kinds of data: sources give images and views take images, unless they say otherwise.

A source of another kind has an attribute ``gives`` (``"signals"``, for example),
and views for it have an attribute ``takes`` with the same value. Such a source may
name a method in ``example_method``, and such views a source in ``example_data``:
an error message then suggests it.
"""

from __future__ import annotations

from typing import Any

from coview.errors import RequestError

IMAGES = "images"


def refuse_other_kind(views: Any, name: str, source: Any) -> None:
    """Refuse data that these views do not take.

    Args:
        views: the views component's class.
        name: the views component's name.
        source: the source of the data.

    Raises:
        RequestError: the kinds differ; the message says what would fit, if known.
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
