"""``coview push``: a run's weights, with a model card, to the Hugging Face Hub."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from coview.commands.options import json_option, print_json, print_table
from coview.errors import CoviewError, RequestError
from coview_hub.fetching import split_name

if TYPE_CHECKING:
    from huggingface_hub import HfApi

LICENCES = "apache-2.0, mit, cc-by-4.0, cc-by-nc-4.0, other"


@click.command("push")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("to", metavar="hf:USER/NAME")
@click.option(
    "--license",
    "licence",
    help=f"Under which licence others may use the weights: {LICENCES}, ... Asked for if missing.",
)
@click.option("--private", is_flag=True, help="Make a new repository private.")
@click.option("--message", help="The commit's message.  [default: METHOD on DATA]")
@click.option("--dry-run", is_flag=True, help="Show what would be sent; send nothing.")
@click.option("--yes", is_flag=True, help="Send without asking.")
@json_option
def command(
    run: Path,
    to: str,
    licence: str | None,
    private: bool,
    message: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Send a run's weights to the Hugging Face Hub, with a model card made from the run.

    The weights are safetensors; timm.create_model("hf-hub:USER/NAME", pretrained=True) loads
    them where timm has the network. Nothing is sent without a confirmation or --yes.
    """
    place, _, name = to.partition(":")
    if place != "hf":
        raise RequestError(f"Weights are sent to hf:USER/NAME, not {to}.")
    repository, revision = split_name(name)
    if revision is not None:
        raise RequestError(f"Leave out @{revision}: weights become a repository's newest revision.")
    licence = licence or _asked_licence(yes or dry_run)
    click.echo(f"reading {run}", err=True)
    from coview.evaluation.results import facts_of
    from coview_hub.bundle import CARD, has_weights, told_data, write

    has_weights(run)
    facts = facts_of(run)
    with tempfile.TemporaryDirectory() as folder:
        files = write(run, repository, licence, Path(folder))
        sizes = {file: (Path(folder) / file).stat().st_size for file in files}
        _show(repository, private, licence, sizes, err=as_json)
        if dry_run:
            click.echo((Path(folder) / CARD).read_text(encoding="utf-8"), err=as_json)
            click.echo("Nothing was sent: leave out --dry-run to send it.", err=True)
            return
        _confirm(yes)
        words = message or f"{facts['method']} on {told_data(facts, short=True)}"
        url = _sent(repository, private, Path(folder), words)
    if as_json:
        print_json({"repository": repository, "url": url, "files": sizes})
    else:
        click.echo(f"sent: {url}")


def _asked_licence(silent: bool) -> str:
    if silent or not _at_terminal():
        raise RequestError(f"Say under which licence: --license NAME ({LICENCES}, ...).")
    given: str = click.prompt(f"Under which licence ({LICENCES}, ...)?")
    return given


def _at_terminal() -> bool:
    return sys.stdin.isatty()


def _show(repository: str, private: bool, licence: str, sizes: dict[str, int], err: bool) -> None:
    seen = "private" if private else "public unless it exists and is private"
    click.echo(f"to {repository} ({seen}), licence {licence}:", err=err)
    rows: Sequence[tuple[str, str]] = [(n, f"{size:,} bytes") for n, size in sizes.items()]
    if not err:
        print_table(rows, indent="  ")


def _confirm(yes: bool) -> None:
    if yes:
        return
    if not _at_terminal():
        raise RequestError("Nothing was sent: this needs your confirmation. To send it, add: --yes")
    if not click.confirm("Send it?"):
        raise CoviewError("Nothing was sent.")


def _sent(repository: str, private: bool, folder: Path, message: str) -> str:
    """Send a folder; return where it can be seen."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    api: HfApi = HfApi()
    try:
        # None leaves the choice to the organisation, as the Hub does.
        where = api.create_repo(repository, private=private or None, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
    except LocalTokenNotFoundError as error:
        raise CoviewError("You are not logged in to the Hub: hf auth login") from error
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code in (401, 403):
            raise CoviewError(
                f"The Hub does not let you write to {repository}. Log in with a token that may: "
                "hf auth login"
            ) from error
        raise CoviewError(f"The Hub refuses {repository}: {str(error).splitlines()[0]}") from error
    except Exception as error:
        # The client's library for connections has changed its name twice: httpx, httpx2.
        if not type(error).__module__.startswith(("http", "requests")):
            raise
        raise CoviewError(
            f"The Hub cannot be reached ({type(error).__name__}: {error}). The run is unchanged; "
            "try again later."
        ) from error
    return str(where)
