"""What a component declares beside its hooks: every attribute that the engine reads.

A component is an ``nn.Module`` with hook implementations. It may derive from its role's class
here, which has a default for each attribute, or define only those that differ; in both cases
the engine reads them with :func:`declared`. A component with an attribute that no role lists
is refused when it is looked up, so a typo is an error instead of being ignored.

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
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import attrs

from coview.errors import PluginError, RequestError
from coview.hookspecs import ROLES, VERSION
from coview.introspect import written
from coview.records import Targets

if TYPE_CHECKING:
    from torch import Tensor, nn

    from coview.plan import Layout
    from coview.records import Batch, Encoded, Step, Views

IMAGES = "images"
"""The kind of data that sets give and views take, unless they declare another."""


@attrs.frozen
class Guard:
    """A safeguard against collapse.

    Attributes:
        what: the safeguard in a few words, e.g. ``"a predictor"``.
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
        weight_decay: replaces the optimiser's; None: keep it.
        adapted: whether layer-wise adaptation (LARS) applies; None: the optimiser decides.
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
    """Roles that must be filled too, each with the reason, a clause for the error message."""

    ignores: ClassVar[Sequence[str]] = ()
    """Roles that this component does not use; a run that fills one gets a notice."""

    needs_fields: ClassVar[Sequence[str]] = ()
    """Fields of the data that it reads from ``batch.fields`` (``labels``, ``captions``, ...)."""

    @staticmethod
    def example_fields(indices: Tensor) -> Mapping[str, Any]:
        """Return made-up values of the fields it needs for images ``indices`` (B,), for tests.

        Labels need none: the conformance kit makes them up.
        """
        return {}

    contract: ClassVar[int] = VERSION
    """The version of the hooks that it was written for (:data:`coview.hookspecs.VERSION`)."""

    own_buffers: Sequence[str] = ()
    """Names of buffers that differ between processes and must not be synchronised at the start."""

    def guards(self) -> Sequence[Guard]:
        """Return this component's safeguards against collapse, switched on or not."""
        return ()

    def parameter_groups(self) -> Mapping[str, ParameterGroup]:
        """Return parameter groups by pattern, matched against the component's parameter names."""
        return {}


class ViewsComponent(Component):
    """Role ``views``."""

    takes: ClassVar[str] = IMAGES
    """The kind of data it takes; must equal the data set's ``gives``."""

    example_data: ClassVar[str | None] = None
    """A value of ``--data`` that fits, for the message that refuses other data."""

    @staticmethod
    def least_side(settings: Any, image_size: int) -> float | None:
        """Return how large images must be for their smallest crop to be no enlargement.

        Views that cut crops from images at their own sizes (:attr:`Batch.extents`) say so
        by returning a side in pixels, the square root of the area: larger images may be
        reduced to it. None: they take images of one size only.

        Args:
            settings: the component's settings.
            image_size: the loader's image size, which view sizes are derived from.
        """
        return None

    layout: Layout
    """Number, sizes and channels of the views, and which are queries, keys and positives."""

    normalization: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    """Mean and standard deviation of each channel, if evaluation views are only the standardised
    centre of the image; None: the exported backbone needs this views component."""

    def evaluation_views(self, images: Tensor) -> Views:
        """Return the views that evaluation uses of images (B, C, H, W), uint8 or in [0, 1]."""
        raise NotImplementedError

    def pictured(self, view: int, crop: Tensor) -> Tensor | None:
        """Return a view as an RGB or grey image in [0, 1]; None: undo the normalisation."""
        return None


class EncoderComponent(Component):
    """Role ``encoder``; :class:`coview.nn.encoder.Encoder` implements all of it."""

    dim: int
    """Width d of what is compared."""

    by_view: ClassVar[bool] = True
    """Whether each slot is a view."""

    example_backbone: ClassVar[str | None] = None
    """A small backbone that fits, of an encoder that not any fits (only transformers, say); the
    conformance kit uses it."""

    queries_are: ClassVar[str] = ""
    """What query rows are, if they do not live in the space of projections and keys: ``scores``
    of prototypes, for example."""

    slots: Mapping[int, str] = MappingProxyType({})
    """What the rows of each key slot are (``image``, ``patch``, ``token``, ``offset``, ``text``);
    empty: every key slot is a view, and its rows are images."""

    def backbone(self) -> nn.Module:
        """Return the network that is exported and evaluated: (B, C, H, W) -> (B, D)."""
        raise NotImplementedError

    def project(self, views: Views, which: Sequence[int]) -> tuple[Any, Any]:
        """Return features and projections, by view, of the views numbered ``which``."""
        raise NotImplementedError

    def predict(self, projections: Mapping[int, Tensor]) -> Mapping[int, Tensor]:
        """Return predictions by view; without a predictor, the projections themselves."""
        return projections

    def without_predictor(self) -> nn.Module:
        """Return a copy, weights included, that projects but does not predict."""
        raise NotImplementedError

    def encode_keys(self, views: Views, encoded: Encoded, batch: Batch, step: Step) -> Targets:
        """Return the keys by slot, as a target's copy of this encoder makes them.

        The default is the projection of every key view. An encoder whose slots are not
        views (places, tokens, texts) has its own, so that momentum targets work with it.
        """
        _, keys = self.project(views, views.keys)
        return Targets(keys, dict.fromkeys(views.keys, batch.indices))

    def shuffled(
        self, views: Views, which: Sequence[int], step: Step
    ) -> AbstractContextManager[None]:
        """Return a context in which images are batch-normalised in another order."""
        raise RequestError(
            f"target.shuffle needs an encoder that derives from coview.nn.encoder.Encoder, and "
            f"{type(self).__name__} does not: set target.shuffle = false."
        )


class TargetComponent(Component):
    """Role ``target``."""

    by_view: ClassVar[bool] = False
    """Whether its keys are by view; an encoder whose slots are not views is then refused,
    unless it has its own ``encode_keys`` and the target uses that."""

    uses_encode_keys: ClassVar[bool] = False
    """Whether its keys are what a copy of the encoder returns from ``encode_keys``."""

    passes_gradient: ClassVar[bool] = False
    """Whether keys pass gradient back to the encoder."""

    def backbone(self) -> nn.Module | None:
        """Return the target's own network, for recipes that evaluate it, or None."""
        return None


class NegativesComponent(Component):
    """Role ``negatives``."""

    from_batch: ClassVar[bool] = False
    """Whether they are the other images of the batch, so that a smaller batch has fewer."""


class LossComponent(Component):
    """Role ``loss``."""

    constant_keys: ClassVar[bool] = False
    """Whether this loss treats keys as constants, whatever the target gives."""

    same_space: ClassVar[bool] = False
    """Whether it compares queries with keys number by number, so that both must have one width
    and one meaning. Beside an encoder whose queries are something else (``queries_are``), its
    queries are the projections."""


class WrapperComponent(Component):
    """A wrapper of hooks (a recipe's ``wrap``, group ``coview.wrappers``)."""


ROLE_CLASSES: Mapping[str, type[Component]] = {
    "views": ViewsComponent,
    "encoder": EncoderComponent,
    "target": TargetComponent,
    "negatives": NegativesComponent,
    "loss": LossComponent,
    "wrap": WrapperComponent,
}
_ALL = tuple(ROLE_CLASSES.values())


class DataSource:
    """A named data set (group ``coview.datasets``); see :class:`coview.data.base.Source`."""

    gives: ClassVar[str] = IMAGES
    """The kind of data; ``"signals"``: (N, C, T) float, where T replaces the pixels per side."""

    example_method: ClassVar[str | None] = None
    """A method that takes such data, for the message that refuses other methods."""

    fields: ClassVar[Sequence[str]] = ("labels",)
    """What its splits may have beside images (:attr:`coview.data.base.Split.fields`), for the
    message about a field that is missing."""

    @staticmethod
    def count() -> int | None:
        """Return about how many images there are to train on; None: only loading tells.

        It decides the preset of a set of large images, and so must be cheap.
        """
        return None


class EvaluationProtocol:
    """A way to evaluate weights with labels (group ``coview.protocols``).

    A recipe's tables ``probe``, ``finetune`` and ``knn`` each name one, with the settings
    that the method's authors published.
    """

    probe_settings: ClassVar[type | None] = None
    """attrs class for the settings in table ``probe``; None: this protocol cannot probe."""

    finetune_settings: ClassVar[type | None] = None
    """attrs class for the settings in table ``finetune``; None: it cannot fine-tune."""

    knn_settings: ClassVar[type | None] = None
    """attrs class for the settings in table ``knn``; None: it is no vote of neighbours."""

    evaluate_settings: ClassVar[type | None] = None
    """attrs class for the settings of ``coview.evaluate``; None: that uses ``probe``."""

    @staticmethod
    def probe(network: Any, data: Any, settings: Any, **options: Any) -> Any:
        """Evaluate a frozen network; return a result whose ``as_dict()`` names the protocol.

        Options: seed, batch_size (of evaluation), device, workers and save (a path or None).
        """
        raise NotImplementedError

    @staticmethod
    def finetune(
        network: Any, head: nn.Module, width: int, data: Any, settings: Any, **options: Any
    ) -> Any:
        """Fine-tune the whole network; return a result whose ``as_dict()`` names the protocol."""
        raise NotImplementedError

    @staticmethod
    def evaluate(subject: Any, settings: Any) -> Mapping[str, Any]:
        """Measure a :class:`coview.evaluation.subject.Subject`; return plain values for JSON."""
        raise NotImplementedError


def declared(thing: object, role: type, name: str) -> Any:
    """Return the value of a declared attribute, or its role's default.

    Args:
        thing: a component, its class, or any other object described above.
        role: the class above that lists the attribute.
        name: the attribute's name.

    Raises:
        AttributeError: ``role`` does not list the attribute, or ``thing`` lacks it and
            there is no default.
    """
    if name not in _listed(role):
        raise AttributeError(f"{role.__name__} does not list an attribute {name!r}.")
    if hasattr(thing, name):
        return getattr(thing, name)
    default = inspect.getattr_static(role, name)
    if isinstance(default, staticmethod):
        return default.__func__
    return functools.partial(default, thing) if inspect.isfunction(default) else default


def refuse_undeclared(thing: object, label: str, roles: Sequence[str] = ROLES) -> None:
    """Refuse a component with an attribute that the engine would never read.

    Data in a class's body must be listed by a role's class or by a base class of the core.
    Methods and instance attributes may have any name, unless it looks like a misspelling
    of a listed one that is missing.

    Args:
        thing: a component or its class.
        label: the component's name in the message.
        roles: the roles that it fills.

    Raises:
        PluginError: names the attribute and the nearest listed one.
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
                f"{f' Did you mean {near[0]!r}?' if near else ''} Start the names of your own "
                "attributes with an underscore."
            )
    for name in {*written(cls, code=True), *(() if thing is cls else vars(thing))}:
        close = difflib.get_close_matches(name, own, n=1, cutoff=0.8)
        if name not in known and name[0] != "_" and close and not _said(thing, close[0]):
            raise PluginError(
                f"{label} has {name!r}, which coview does not know. Did you mean {close[0]!r}?"
            )
    _refuse_wrong_values(thing, label)


def _said(thing: object, name: str) -> bool:
    """Whether an attribute is there other than as a role's default."""
    found = inspect.getattr_static(thing, name, None)
    return hasattr(thing, name) and not any(found is vars(c).get(name) for c in (*_ALL, Component))


def _refuse_wrong_values(thing: object, label: str) -> None:
    version = declared(thing, Component, "contract")
    if version not in range(1, VERSION + 1):
        raise PluginError(
            f"{label} was written for version {version} of coview's hooks; this coview has "
            f"{VERSION}: install a newer coview."
        )
    for name in ("needs", "ignores"):
        for other in declared(thing, Component, name):
            if other not in ROLES:
                raise PluginError(
                    f"{label}: {name} must list roles ({', '.join(ROLES)}), not {other!r}."
                )
    if isinstance(fields := declared(thing, Component, "needs_fields"), str):
        raise PluginError(f"{label}: needs_fields must be a tuple of names: ({fields!r},).")
    for role in _ALL:
        for name, default in vars(role).items():
            value = declared(thing, role, name) if isinstance(default, bool) else False
            if not isinstance(value, bool):
                raise PluginError(f"{label}: {name} must be True or False, not {value!r}.")


def _listed(role: type) -> tuple[str, ...]:
    """Return the public names that one of the classes above lists, with or without a default."""
    names: dict[str, None] = {"Settings": None}
    for cls in role.__mro__[:-1]:
        names |= dict.fromkeys((*vars(cls), *inspect.get_annotations(cls)))
    return tuple(name for name in names if not name.startswith("_"))
