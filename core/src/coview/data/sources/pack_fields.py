"""What there is for each image beside its label, in a pack.

``NAME.fields.json`` has the values of each field by name, or the number of the file
``NAME.field-NUMBER.npy`` that has them, if they are numbers of one shape.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coview.errors import RequestError
from coview.files import write_json

Fields = Mapping[str, Tensor | Sequence[Any]]


def write_fields(stem: Path, fields: Fields) -> None:
    """Write a split's fields.

    Args:
        stem: the folder, and the split's name.
        fields: (N, ...) or N values each, by name.

    Raises:
        RequestError: a field holds what JSON cannot.
    """
    if not fields:
        return
    listed: dict[str, dict[str, Any]] = {}
    for number, (name, values) in enumerate(fields.items()):
        if isinstance(values, Tensor):
            np.save(_beside(stem, f"field-{number}.npy"), values.cpu().numpy())
            listed[name] = {"file": number}
            continue
        try:
            listed[name] = {"values": json.loads(json.dumps(list(values)))}
        except TypeError as error:
            raise RequestError(
                f"The field {name!r} cannot be packed: {error}. What can be: numbers of one shape, "
                "texts, lists and tables."
            ) from error
    write_json(_beside(stem, "fields.json"), listed)


def read_fields(stem: Path, count: int) -> dict[str, Tensor | list[Any]]:
    """Return the fields of a split of ``count`` images.

    Raises:
        ValueError: there are more or fewer values.
    """
    listed = json.loads(_beside(stem, "fields.json").read_text(encoding="utf-8"))
    found: dict[str, Tensor | list[Any]] = {}
    for name, about in listed.items():
        if "file" in about:
            found[name] = torch.from_numpy(np.load(_beside(stem, f"field-{about['file']}.npy")))
        else:
            found[name] = about["values"]
        if len(found[name]) != count:
            raise ValueError(f"the field {name!r} has {len(found[name])} values, not {count}")
    return found


def _beside(stem: Path, ending: str) -> Path:
    return stem.with_name(f"{stem.name}.{ending}")
