"""What a component declares beside its hooks: every attribute that the engine reads.

A component is an ``nn.Module`` with hook implementations. It may derive from its role's class
here, which gives each attribute its default, or write down only those that differ: either way
the engine reads them by :func:`declared`. An attribute that is not listed here is refused
when the component is looked up, so that a slip of the keyboard is an error and not silence.

Data sets and evaluation protocols declare theirs in the same way, further down. So do
optimisers (:class:`coview.optim.optimizers.OptimizerMaker`), learning-rate schedules
(:class:`coview.optim.schedules.LearningRateSchedule`), view backends
(:class:`coview.views.operations.ViewBackend`) and observers
(:class:`coview.training.observers.base.Observer`).
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from coview.errors import PluginError
from coview.hookspecs import ROLES
from coview.introspect import written

if TYPE_CHECKING:
    from torch import Tensor, nn

    from coview.plan import Layout
    from coview.records import Views

IMAGES = "images"
"""What data sets give and views take, unless they say otherwise."""


@attrs.frozen
class Guard:
    """A safeguard against collapse.

    Attributes:
        what: in a few words, e.g. ``"a predictor"``.
        on: whether this run has it.
        how: the option that switches it on.
    """

    what: str
    on: bool
    how: str = ""


@attrs.frozen
class ParameterGroup:
    """How the optimiser treats parameters whose names match a pattern.

    Attributes:
        fixed_rate: keep the peak learning rate, whatever the schedule says.
        rate_scale: multiply the learning rate.
        weight_decay: replaces the optimiser's.
        adapted: whether layer-wise adaptation (LARS) applies; None: as the optimiser says.
    """

    fixed_rate: bool = False
    rate_scale: float = 1.0
    weight_decay: float | None = None
    adapted: bool | None = None


class Component:
    """What a component of any role may declare.

    A class has an attrs class called ``Settings`` inside it and is built as
    ``Class(settings, plan)``.
    """

    needs: ClassVar[Mapping[str, str]] = MappingProxyType({})
    """Roles that must be filled beside this one, each with the reason, a clause for the message."""

    ignores: ClassVar[Sequence[str]] = ()
    """Roles that this component makes no use of; a run that fills one is told so."""

    own_buffers: Sequence[str] = ()
    """Names of buffers that differ between processes, and are not copied at the start."""

    def guards(self) -> Sequence[Guard]:
        """Return this component's safeguards against collapse, switched on or not."""
        return ()

    def parameter_groups(self) -> Mapping[str, ParameterGroup]:
        """Return treatments by pattern, matched against parameter names in the component."""
        return {}


class ViewsComponent(Component):
    """Role ``views``."""

    takes: ClassVar[str] = IMAGES
    """The kind of data it renders; compared with the data set's ``gives``."""

    example_data: ClassVar[str | None] = None
    """A ``--data`` that fits, for the message that refuses another kind."""

    layout: Layout
    """Number, sizes and channels of the views, and which are queries, keys and positives."""

    normalization: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Mean and standard deviation of each channel, where evaluation views are the standardised
    centre of the image and nothing more; None: the exported backbone needs these views."""

    def evaluation_views(self, images: Tensor) -> Views:
        """Return images (B, C, H, W), uint8 or float in [0, 1], as evaluation sees them."""
        raise NotImplementedError

    def pictured(self, view: int, crop: Tensor) -> Tensor | None:
        """Return a view as an RGB or grey image in [0, 1]; None: take back the normalisation."""
        return None


class EncoderComponent(Component):
    """Role ``encoder``; :class:`coview.nn.encoder.Encoder` has all of it."""

    dim: int
    """Width d of what is compared."""

    by_view: ClassVar[bool] = True
    """Whether a slot is a view."""

    def backbone(self) -> nn.Module:
        """Return what is exported and evaluated: (B, C, H, W) -> (B, D)."""
        raise NotImplementedError

    def project(self, views: Views, which: Sequence[int]) -> tuple[Any, Any]:
        """Return features and projections by view, of the views numbered ``which``."""
        raise NotImplementedError

    def predict(self, projections: Mapping[int, Tensor]) -> Mapping[int, Tensor]:
        """Return predictions by view; without a predictor the projections themselves."""
        return projections

    def without_predictor(self) -> nn.Module:
        """Return a copy, weights included, that projects but does not predict."""
        raise NotImplementedError


class TargetComponent(Component):
    """Role ``target``."""

    by_view: ClassVar[bool] = False
    """Whether its keys are by view; it is then refused beside an encoder whose slots are not."""

    passes_gradient: ClassVar[bool] = False
    """Whether keys pass gradient back to the encoder."""

    def backbone(self) -> nn.Module | None:
        """Return the target's own network, for recipes that evaluate it; None: it has none."""
        return None


class NegativesComponent(Component):
    """Role ``negatives``."""


class LossComponent(Component):
    """Role ``loss``."""

    constant_keys: ClassVar[bool] = False
    """Whether keys are constants to this loss, whatever the target gives."""


ROLE_CLASSES: Mapping[str, type[Component]] = {
    "views": ViewsComponent,
    "encoder": EncoderComponent,
    "target": TargetComponent,
    "negatives": NegativesComponent,
    "loss": LossComponent,
}
_ALL = tuple(ROLE_CLASSES.values())


class DataSource:
    """A data set by name (group ``coview.datasets``); see :class:`coview.data.base.Source`."""

    gives: ClassVar[str] = IMAGES
    """The kind of data; ``"signals"``: (N, C, T) float, T in place of the pixels a side."""

    example_method: ClassVar[str | None] = None
    """A method that takes such data, for the message that refuses another."""


class EvaluationProtocol:
    """How weights are measured with labels (group ``coview.protocols``).

    A recipe's tables ``probe`` and ``finetune`` name one, with the settings that the
    method's authors published.
    """

    probe_settings: ClassVar[type | None] = None
    """attrs class of the table ``probe``'s settings; None: this cannot probe."""

    finetune_settings: ClassVar[type | None] = None
    """attrs class of the table ``finetune``'s settings; None: this cannot fine-tune."""

    @staticmethod
    def probe(network: Any, data: Any, settings: Any, **options: Any) -> Any:
        """Measure a frozen network; return a result whose ``as_dict()`` names the protocol.

        Options are seed, batch_size (in evaluation), device, workers and save, a path or None.
        """
        raise NotImplementedError

    @staticmethod
    def finetune(
        network: Any, head: nn.Module, width: int, data: Any, settings: Any, **options: Any
    ) -> Any:
        """Train the whole network; return a result whose ``as_dict()`` names the protocol."""
        raise NotImplementedError


def declared(thing: object, role: type, name: str) -> Any:
    """Return what a thing declares by ``name``, or its role's default.

    Args:
        thing: a component, its class, or another of the things above.
        role: the class above that lists the attribute.
        name: of the attribute.

    Raises:
        AttributeError: ``role`` lists no such attribute, or it has no default and the
            thing lacks it.
    """
    if name not in _listed(role):
        raise AttributeError(f"{role.__name__} declares no {name!r}")
    if hasattr(thing, name):
        return getattr(thing, name)
    default = inspect.getattr_static(role, name)
    if isinstance(default, staticmethod):
        return default.__func__
    return functools.partial(default, thing) if inspect.isfunction(default) else default


def refuse_undeclared(thing: object, label: str, roles: Sequence[str] = ROLES) -> None:
    """Refuse a component with an attribute that the engine would never read.

    Data in a class's body must be listed by a role's class or by a base class of the core.
    Methods and instance attributes are the component's own business unless their names
    are nearly those of a listed one that is not there.

    Args:
        thing: a component or its class.
        label: who it is in the message.
        roles: that it fills.

    Raises:
        PluginError: with the attribute's name and the nearest right one.
    """
    cls = thing if isinstance(thing, type) else type(thing)
    # A class may fill two roles (a bank is target and negatives), so any role's will do.
    known = [name for role in _ALL for name in _listed(role)]
    own = [name for role in roles for name in _listed(ROLE_CLASSES[role])]
    for name in written(cls, code=False):
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
            raise PluginError(
                f"{label} has an attribute {name!r} that coview does not know."
                f"{f' Did you mean {near[0]!r}?' if near else ''} An attribute of your own starts "
                "with an underscore."
            )
    for name in {*written(cls, code=True), *(() if thing is cls else vars(thing))}:
        close = difflib.get_close_matches(name, own, n=1, cutoff=0.8)
        if name not in known and name[0] != "_" and close and not hasattr(thing, close[0]):
            raise PluginError(
                f"{label} has {name!r}, which coview does not know. Did you mean {close[0]!r}?"
            )
    _refuse_wrong_values(thing, label)


def _refuse_wrong_values(thing: object, label: str) -> None:
    for name in ("needs", "ignores"):
        for other in declared(thing, Component, name):
            if other not in ROLES:
                raise PluginError(
                    f"{label}: {name} must name roles ({', '.join(ROLES)}), not {other!r}."
                )
    for role in _ALL:
        for name, default in vars(role).items():
            value = declared(thing, role, name) if isinstance(default, bool) else False
            if not isinstance(value, bool):
                raise PluginError(f"{label}: {name} must be True or False, not {value!r}.")


def _listed(role: type) -> tuple[str, ...]:
    """Return the public names that a class above lists, with a default or without."""
    names: dict[str, None] = {"Settings": None}
    for cls in role.__mro__[:-1]:
        names |= dict.fromkeys((*vars(cls), *inspect.get_annotations(cls)))
    return tuple(name for name in names if not name.startswith("_"))
