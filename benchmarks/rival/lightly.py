"""lightly's loops of coview compare --with lightly, as strong as every library's here."""

from types import SimpleNamespace
from typing import Any

from lightly.transforms.utils import IMAGENET_NORMALIZE
from lightly.utils.scheduler import cosine_schedule

from coview.records import Step
from coview.studies.peers import Loop, Views
from coview_report import lightly_loops

MEAN, STD = IMAGENET_NORMALIZE["mean"], IMAGENET_NORMALIZE["std"]


def loop(method: str, trunk: Any, own: SimpleNamespace, wheel: str) -> Loop:
    given = vars(own) | {"batch_norm": True}
    if hasattr(own, "decay"):
        pair = own.decay

        def decay(at: Step) -> float:
            return cosine_schedule(at.epoch, at.total_epochs, *pair)

        given["decay"] = decay
    return lightly_loops.LOOPS[method](trunk, SimpleNamespace(**given))


def views(method: str, size: int, asked: SimpleNamespace, wheel: str) -> Views:
    """Return the method's own transform, as strong as every library's."""
    none = {"blur_p": (0.0, 0.0), "solarize_p": (0.0, 0.0), "blur_sigma": (0.1, 2.0)}
    given = vars(asked) | none | {"normalize": IMAGENET_NORMALIZE}
    return lightly_loops.views(method, size, SimpleNamespace(**given))
