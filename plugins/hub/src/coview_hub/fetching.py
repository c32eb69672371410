"""Weights that lie on the Hub, as ``hf:USER/NAME[@REVISION]``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from coview.errors import CoviewError, RequestError

if TYPE_CHECKING:
    from collections.abc import Callable

FILES = ("model.safetensors", "backbone.safetensors", "pytorch_model.bin")
"""What the file of weights may be called, the first that there is."""


def split_name(name: str) -> tuple[str, str | None]:
    """Return a repository's name and the revision after an @, if any.

    Raises:
        RequestError: it is no name of a repository.
    """
    repository, _, revision = name.partition("@")
    user, slash, own = repository.partition("/")
    if not (user and slash and own) or "/" in own:
        raise RequestError(f"Weights on the Hub are called hf:USER/NAME, not hf:{name}.")
    return repository, revision or None


def fetched(name: str) -> Path:
    """Return the file of a repository's weights: from the cache if nothing has changed, or offline.

    Args:
        name: ``USER/NAME`` or ``USER/NAME@REVISION``.

    Raises:
        RequestError: there is no such repository, or it holds no weights.
        CoviewError: it is not in the cache, and the Hub cannot be reached.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import (
        EntryNotFoundError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    repository, revision = split_name(name)
    for file in FILES:
        try:
            return Path(hf_hub_download(repository, file, revision=revision))
        except LocalEntryNotFoundError as error:
            last = file == FILES[-1]
            if last or not _in_cache(repository):
                raise CoviewError(
                    f"The weights hf:{name} are not in this machine's cache, and the Hub cannot be "
                    f"reached ({_first(error.__cause__ or error)})."
                ) from error
        except EntryNotFoundError:
            continue
        except RepositoryNotFoundError as error:
            raise RequestError(
                f"There is no repository {repository} on the Hub. If it is private, log in first: "
                "hf auth login"
            ) from error
        except RevisionNotFoundError as error:
            raise RequestError(f"{repository} has no revision called {revision!r}.") from error
        except HfHubHTTPError as error:
            raise CoviewError(f"The Hub refuses hf:{name}: {_first(error)}") from error
    raise RequestError(f"hf:{name} holds no file of weights ({', '.join(FILES)}).")


def _in_cache(repository: str) -> bool:
    """Whether another file of the repository may be in the cache."""
    from huggingface_hub import try_to_load_from_cache

    lookup: Callable[[str, str], Any] = try_to_load_from_cache
    return any(isinstance(lookup(repository, file), str) for file in FILES)


def _first(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]}".rstrip(": ")
