"""CPC's encoder for signals."""

from __future__ import annotations

from torch import Tensor, nn

from coview.nn.backbones import BackboneSettings

KERNELS = (10, 8, 4, 4, 4)
STRIDES = (5, 4, 2, 2, 2)


class StridedConvolutions(nn.Module):
    """Five strided convolutions with ReLU, from a frame of 465 samples to one vector.

    Args:
        channels: number of channels of the signal.
        width: width of every layer and of the vector; the paper's is 512.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        inputs = (channels, *(width,) * (len(KERNELS) - 1))
        layers = [
            layer
            for sizes in zip(inputs, KERNELS, STRIDES, strict=True)
            for layer in (nn.Conv1d(sizes[0], width, *sizes[1:]), nn.ReLU(inplace=True))
        ]
        self.layers = nn.Sequential(*layers)
        self.num_features = width
        for layer in layers:
            if isinstance(layer, nn.Conv1d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")

    def forward(self, signals: Tensor) -> Tensor:
        """(B, C, T) -> (B, width): for a longer signal, the mean of its vectors."""
        vectors: Tensor = self.layers(signals)
        return vectors.mean(dim=-1)


def audio(channels: int, image_size: int, settings: BackboneSettings) -> nn.Module:
    """Return the paper's encoder: 512 features (van den Oord et al. 2018, section 3.1)."""
    return StridedConvolutions(channels, 512)


def audio_narrow(channels: int, image_size: int, settings: BackboneSettings) -> nn.Module:
    """Return cpc-audio with 32 features, for tests and demonstrations; not in any paper."""
    return StridedConvolutions(channels, 32)
