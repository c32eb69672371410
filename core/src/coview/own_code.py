"""The user's own code, named as ``file.py:name`` or ``package.module:name``.

Loading it executes it. So it is only done for a name that the user wrote, or that stands in the
directory of a run; :func:`importing_nothing` holds while a file of weights is opened.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import operator
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs

from coview.errors import RequestError, nearest

_REFUSED: ContextVar[str | None] = ContextVar("why nothing may be imported", default=None)
_FILES: dict[tuple[str, int, int], ModuleType] = {}


def is_code(text: str) -> bool:
    """Whether a text has the form ``file.py:name`` or ``module:name``; nothing is looked up."""
    place, _, name = text.rpartition(":")
    dotted = all(part.isidentifier() for part in name.split("."))
    module = all(part.isidentifier() for part in place.split("."))
    return dotted and (place.endswith(".py") or module)


def placed(text: str) -> str:
    """Return the name of code with its file's absolute path; any other text as it is."""
    place, _, name = text.rpartition(":")
    if not (is_code(text) and place.endswith(".py")):
        return text
    return f"{Path(place).expanduser().resolve()}:{name}"


@attrs.frozen
class Loaded:
    """Something imported from the user's own code.

    Attributes:
        name: ``file.py:name``, with the file's absolute path, or ``module:name``.
        thing: the object.
        file: the file that it was imported from; None: unknown.
    """

    name: str
    thing: Any
    file: Path | None

    @property
    def where(self) -> str:
        """What was imported from where, in words: ``make_network from /home/me/net.py``."""
        place, _, name = self.name.rpartition(":")
        return f"{name} from {self.file or place}"

    def call(self, *arguments: Any, **named: Any) -> Any:
        """Call it while the modules beside its file can be imported."""
        with _beside(self.file):
            return self.thing(*arguments, **named)

    def facts(self) -> dict[str, Any]:
        """Return its name, and a digest that changes when its file does, for ``run.json``."""
        return {"code": self.name, "digest": None if self.file is None else digest(self.file)}


def digest(file: Path) -> str:
    """Return a fingerprint of a file."""
    return hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest()


@contextmanager
def importing_nothing(why: str) -> Iterator[None]:
    """While this holds, :func:`load` refuses: with ``why``, a sentence."""
    token = _REFUSED.set(why)
    try:
        yield
    finally:
        _REFUSED.reset(token)


def refuse_unsaid(recipe: Path, named: Iterable[tuple[str, str]], said: Iterable[str]) -> None:
    """Refuse what a recipe file names, unless it is that of a run, or the user names it too.

    Args:
        recipe: the file.
        named: names in it, each with the option by which a user would name it.
        said: the names that the user gave.

    Raises:
        RequestError: the message says what to add.
    """
    if recipe.suffix != ".toml" or (recipe.parent / "run.json").is_file():
        return
    known = {placed(name) for name in said}
    problems = [
        f"{recipe} names code to import, {name}. If you trust it, add: {option}{name}"
        for option, name in named
        if is_code(name) and placed(name) not in known
    ]
    if problems:
        raise RequestError(*problems)


def load(text: str) -> Loaded:
    """Import what a text names; see :func:`is_code`.

    Raises:
        RequestError: there is no such file, module or name, the code fails, or nothing may be
            imported now.
    """
    why = _REFUSED.get()
    if why is not None:
        raise RequestError(f"{why} ({text})")
    name = placed(text)
    place, _, attribute = name.rpartition(":")
    path = Path(place) if place.endswith(".py") else None
    with _beside(path):
        module = _of_file(path) if path is not None else _of_module(place)
    try:
        thing = operator.attrgetter(attribute)(module)
    except AttributeError:
        known = [other for other in vars(module) if not other.startswith("_")]
        raise RequestError(f"{place} has no {attribute!r}.{nearest(attribute, known)}") from None
    file = getattr(module, "__file__", None)
    return Loaded(name, thing, None if file is None else Path(file))


@contextmanager
def _beside(file: Path | None) -> Iterator[None]:
    """Let imports find what lies beside a file, after everything that is installed."""
    folder = str(Path.cwd() if file is None else file.parent)
    sys.path.append(folder)
    try:
        yield
    finally:
        if folder in sys.path:
            # The last one: an equal one before it is someone else's.
            del sys.path[len(sys.path) - 1 - sys.path[::-1].index(folder)]


def _of_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise RequestError(f"There is no file {path}.")
    state = path.stat()
    key = (str(path), state.st_mtime_ns, state.st_size)
    if key in _FILES:
        return _FILES[key]
    name = f"{path.stem}_{hashlib.blake2b(str(path).encode(), digest_size=4).hexdigest()}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses, for one, look themselves up
    _executed(lambda: spec.loader.exec_module(module), path)  # type: ignore[union-attr]
    _FILES[key] = module
    return module


def _of_module(name: str) -> ModuleType:
    try:
        found = importlib.util.find_spec(name)
    except ImportError:
        found = None
    except Exception as error:
        raise RequestError(_failed(name, error)) from error
    if found is None:
        raise RequestError(
            f"There is no module {name}, neither installed nor in {Path.cwd()}. A file's name "
            "ends in .py."
        )
    module: ModuleType = _executed(lambda: importlib.import_module(name), name)
    return module


def _executed(work: Callable[[], Any], where: Path | str) -> Any:
    try:
        return work()
    except (Exception, SystemExit) as error:
        raise RequestError(_failed(where, error)) from error


def _failed(where: Path | str, error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(where)]
    at = f", line {lines[-1]}" if lines else ""
    return f"{where}{at}: importing it fails with {type(error).__name__}: {error}"
