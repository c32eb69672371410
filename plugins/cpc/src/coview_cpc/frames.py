"""Views that are the overlapping frames of a signal."""

from __future__ import annotations

import attrs
import torch
from torch import Tensor, nn

from coview.errors import RequestError
from coview.hookspecs import hookimpl
from coview.plan import Layout, Plan
from coview.records import Batch, Step, Views
from coview.settings import gt, setting
from coview_cpc.augmentation import draw


class FrameViews(nn.Module):
    """A window of a signal, cut into frames, each a view (van den Oord et al. 2018, section 3.1).

    The paper runs strided convolutions over the window, which give one vector every
    160 samples, each from 465 samples. Encoding frames of 465 samples, 160 apart, one
    by one gives the very same vectors. Without padding, 20,480 samples are 126
    frames. Views are a grid of one column.
    """

    takes = "signals"
    example_data = "wav:FOLDER"

    @attrs.frozen
    class Settings:
        """The paper's values."""

        window: int = setting(20480, "samples in the random window of a recording", gt(0))
        frame: int = setting(465, "samples in a frame", gt(0))
        hop: int = setting(160, "samples from one frame to the next", gt(0))

    def __init__(self, settings: Settings, plan: Plan) -> None:
        super().__init__()
        self.settings = settings
        if settings.window > plan.image_size or settings.frame > settings.window:
            raise RequestError(
                f"A frame ({settings.frame} samples) must fit into a window ({settings.window}), "
                f"and a window into a recording ({plan.image_size}, data.size)."
            )
        count = (settings.window - settings.frame) // settings.hop + 1
        everyone = tuple(range(count))
        self.layout = Layout(
            sizes=((1, settings.frame),) * count,
            channels=(plan.channels,) * count,
            queries=everyone,
            keys=everyone,
            pairs=tuple((v, w) for v in everyone for w in everyone[v + 1 :]),
            grid=(count, 1),
        )

    @hookimpl
    def generate_views(self, batch: Batch, step: Step) -> Views:
        """Return the frames of a random window of each recording, (B, C, frame) float each."""
        window = self.settings.window
        slack = batch.images.shape[-1] - window
        starts = draw(step, len(batch.images), high=slack + 1)
        # Gathered by position, as a slice would read each start back from the device.
        places = starts[:, None] + torch.arange(window, device=starts.device)
        channels = batch.images.shape[1]
        windows = batch.images.gather(-1, places[:, None].expand(-1, channels, -1))
        return self._cut(windows)

    def evaluation_views(self, images: Tensor) -> Views:
        """Return the frames of the middle of recordings (B, C, T)."""
        start = (images.shape[-1] - self.settings.window) // 2
        return self._cut(images[..., start : start + self.settings.window])

    def _cut(self, signals: Tensor) -> Views:
        layout = self.layout
        frames = signals.float().unfold(-1, self.settings.frame, self.settings.hop)
        return Views(frames.unbind(2), layout.queries, layout.keys, layout.pairs)
