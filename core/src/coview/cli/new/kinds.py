"""The kinds of packages that ``coview new`` writes."""

from __future__ import annotations

import attrs


@attrs.frozen
class Kind:
    """A kind of package.

    Attributes:
        what: its one component in a few words.
        group: the kind of the entry point: ``coview.GROUP``.
        thing: the class or function that the entry point names, in a module called as the kind.
        role: the table of the recipe that names it, if it is part of a method.
        usage: commands for the README, in which ``$name`` is the name.
        needs: the packages that it needs beside coview.
        entry: the entry point's name.
        parts: the kinds of which a method has one component each.
        tests_need: the packages that only its tests need.
    """

    what: str
    group: str
    thing: str
    role: str = ""
    usage: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    entry: str = "$name"
    parts: tuple[str, ...] = ()
    tests_need: tuple[str, ...] = ()

    @property
    def has_recipe(self) -> bool:
        """Whether a recipe comes with it, which `coview check` can try."""
        return bool(self.role) or self.group == "methods"


def _of_method(what: str, group: str, thing: str, role: str) -> Kind:
    usage = (
        "coview train $name --data path/to/images",
        f"coview train simclr --use {role}=$name",
        "coview check $name",
    )
    return Kind(what, group, thing, role, usage, ("coview-simclr", "coview-cpc"))


KINDS = {
    "method": Kind(
        "a method",
        "methods",
        "recipe",
        usage=("coview train $name --data path/to/images", "coview check $name"),
        parts=("views", "encoder", "target", "negatives", "loss"),
        tests_need=("coview-cpc",),
    ),
    "loss": _of_method("a loss", "losses", "Loss", "loss"),
    "views": _of_method("views", "views", "ErasedViews", "views"),
    "encoder": _of_method("an encoder", "encoders", "DirectEncoder", "encoder"),
    "target": _of_method("a target", "targets", "PeriodicCopy", "target"),
    "negatives": _of_method("negatives", "negatives", "HardestNegatives", "negatives"),
    "wrapper": _of_method("a wrapper", "wrappers", "CentredKeys", "wrap"),
    "observer": Kind(
        "an observer",
        "observers",
        "Recognition",
        usage=("coview train simclr --observe $name:every=10",),
    ),
    "data": Kind(
        "a data set",
        "datasets",
        "Archive",
        usage=("coview train simclr --data $name:FILE.npz", "coview check $name:FILE.npz"),
    ),
    "optimizer": Kind(
        "an optimiser",
        "optimizers",
        "MakeLion",
        usage=("coview train simclr --use optimizer=$name",),
    ),
    "protocol": Kind(
        "an evaluation protocol",
        "protocols",
        "NearestMean",
        usage=("coview evaluate $name RUN",),
    ),
    "command": Kind("a command", "commands", "command", usage=("coview $name RUN",)),
    "study": Kind(
        "a study",
        "studies",
        "crops",
        usage=("coview study run $name/crops",),
        needs=("coview-simclr",),
        entry="$name/crops",
    ),
}

ROLES = {
    "views": '"simclr"',
    "encoder": '"projection", dim=128',
    "negatives": '"in-batch"',
    "loss": '"info-nce", temperature=0.1',
}
"""SimCLR, in which a package replaces one role."""

SETTINGS = {"loss": ", temperature=0.1"}
"""What the recipe says of the package's own component."""


def roles(kind: Kind, name: str) -> str:
    """Return the lines of a recipe that name its components."""
    uses = dict(ROLES)
    for role in (*kind.parts, *([kind.role] if kind.role else ())):
        uses[role] = f'"{name}"{SETTINGS.get(role, "")}'
    order = ("views", "encoder", "target", "negatives", "loss", "wrap")
    return "\n".join(f"    {role}=Use({uses[role]})," for role in order if role in uses)
