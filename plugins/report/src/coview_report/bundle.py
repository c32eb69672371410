"""The program that draws charts in a browser: Vega, inside the page, never from a network."""

from __future__ import annotations

import functools
from contextlib import suppress

from coview.caches import own_folder
from coview.errors import CoviewError
from coview.files import write_text


@functools.cache
def program() -> str:
    """Return JavaScript that defines ``vegaEmbed``, about 0.9 MB.

    Making it takes seconds, so it is kept with the user's other caches.
    """
    import altair
    import vl_convert

    known = vl_convert.get_vegalite_versions()
    wanted = ".".join(altair.SCHEMA_VERSION.lstrip("v").split(".")[:2])
    version = wanted if wanted in known else known[-1]
    name = f"vega-{vl_convert.__version__}-{version}.js"
    with suppress(CoviewError, OSError, UnicodeDecodeError):
        file = own_folder("report") / name
        if file.is_file() and (kept := file.read_text(encoding="utf-8")):
            return kept
    made: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", version)
    # Inside a page, the end of a script ends it wherever it stands.
    made = made.replace("</script", "<\\/script")
    with suppress(CoviewError, OSError):
        write_text(own_folder("report") / name, made)
    return made
