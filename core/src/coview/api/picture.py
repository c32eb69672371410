"""``coview.views``: a picture of a recipe's views."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from coview.api.results import Result
from coview.errors import RequestError

if TYPE_CHECKING:
    from coview.recipes.configure import Changes
    from coview.recipes.recipe import Recipe
    from coview.training.run import Run

MOST_IMAGES, MOST_DRAWS = 64, 16


def picture(
    method: str | Path | Recipe | Run,
    data: Any,
    out: str | Path,
    changes: Changes,
    *,
    html: str | Path | None = None,
    images: int = 8,
    draws: int = 2,
    seed: int | None = None,
    layer: str = "Python",
) -> Result:
    """Draw images and the views that a recipe makes of them; see :func:`coview.views`.

    Args:
        changes: the changes to the recipe.
        html: HTML file to write as well.
        layer: the origin of these changes, for messages.
    """
    from coview.data.sources import open_source
    from coview.data.sources.arrays import OBJECT
    from coview.recipes.configure import configure
    from coview.training.repeated import repeated
    from coview.views.page import save_page
    from coview.views.picture import draw_views
    from coview.views.sheet import draw_sheet, save_sheet

    _refuse_outside("images", images, MOST_IMAGES)
    _refuse_outside("draws", draws, MOST_DRAWS)
    from coview.training.run import Run

    run = method if isinstance(method, Run) else None
    # Data that were passed as an object have no name by which they could be read again.
    kept = run.data if run is not None and data is None and run.data.name == OBJECT else None
    named = method.path if isinstance(method, Run) else method
    asked = repeated(named, OBJECT if kept else data, seed)
    source = None if kept else open_source(asked.data)
    resolved = configure(asked.method, source.native_size() if source else None, changes, layer)
    loaded = kept or open_source(asked.data).load(resolved.data)
    drawn = draw_views(resolved, loaded, images, draws, asked.seed)
    save_sheet(draw_sheet(drawn.titles, drawn.rows, wide=True), Path(out))
    count, columns, files = len(drawn.rows), len(drawn.titles), {"out": str(out)}
    said = [f"{count} images and {columns - 1} views of each in {out}"]
    if html is not None:
        heading = f"Views of {resolved.recipe.name or 'a recipe'} on {loaded.name}"
        save_page(Path(html), heading, drawn.titles, drawn.rows)
        files["html"] = str(html)
        said.append(f"page: {html}")
    return Result({**files, "images": count, "columns": columns}, said)


def _refuse_outside(name: str, value: int, most: int) -> None:
    if not 1 <= value <= most:
        raise RequestError(f"{name} must be between 1 and {most}, not {value}.")
