from __future__ import annotations

import math
import struct
import wave
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import coview
from coview import Batch, CoviewError, Plan, RequestError, Step
from coview.data.base import DataSettings
from coview.recipes.configure import Changes
from coview.testing import Synchronisations
from coview.training.introduction import introduction
from coview.training.start import Request, rehearse
from coview_cpc.convolutions import KERNELS, STRIDES, StridedConvolutions
from coview_cpc.frames import FrameViews
from coview_cpc.waves import Waves, read

RATE = 16000


def write(
    path: Path, samples: list[float], width: int = 2, channels: int = 1, rate: int = RATE
) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    packed = b""
    for value in samples:
        if width == 1:
            packed += bytes([min(255, round(value * 128) + 128)])
        else:
            top = 2 ** (8 * width - 1)
            packed += struct.pack("<i", min(top - 1, round(value * top)))[:width]
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(packed)


def tones(path: Path, count: int = 12, samples: int = 3000) -> Path:
    """Recordings of three pitches, with noise."""
    random = np.random.RandomState(0)
    for pitch in (300, 700, 1500):
        for number in range(count):
            time = np.arange(samples) / RATE
            tone = np.sin(2 * np.pi * (pitch * time + random.rand()))
            noise = random.randn(samples)
            write(
                path / str(pitch) / f"{number}.wav", (0.2 * tone + 0.1 * noise).clip(-1, 1).tolist()
            )
    return path


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_samples_of_every_width(tmp_path: Path, width: int) -> None:
    values = [0.0, 0.5, -0.5, -1.0, 0.25]
    write(tmp_path / "a.wav", values, width)
    assert read(str(tmp_path / "a.wav")).tolist() == pytest.approx(values, abs=1e-6)


def test_channels_are_averaged(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", [0.5, 0.0, -0.5, -0.25], channels=2)
    assert read(str(tmp_path / "a.wav")).tolist() == [0.25, -0.375]


def test_recordings_are_brought_to_one_length(tmp_path: Path) -> None:
    write(tmp_path / "long.wav", [n / 16 for n in range(8)])
    write(tmp_path / "short.wav", [0.5, 0.25])
    data = Waves(str(tmp_path)).load(DataSettings(size=4, holdout=0.4))
    seen = {
        n: row for s in (data.train, data.test) for n, row in zip(s.names, s.images, strict=True)
    }
    assert seen["long.wav"].tolist() == [[0.125, 0.1875, 0.25, 0.3125]]
    assert seen["short.wav"].tolist() == [[0.0, 0.5, 0.25, 0.0]]


def test_folders_are_classes_and_splits(tmp_path: Path) -> None:
    for split in ("train", "test"):
        tones(tmp_path / split, count=2, samples=50)
    data = Waves(str(tmp_path)).load(DataSettings(size=50))
    assert (len(data.train), len(data.test), data.classes) == (6, 6, ("1500", "300", "700"))
    assert data.train.images.shape == (6, 1, 50) and data.train.images.dtype == torch.float32


def test_recordings_that_cannot_be_used(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", [0.0])
    write(tmp_path / "b.wav", [0.0], rate=8000)
    with pytest.raises(RequestError, match=r"different rates \(\[8000, 16000\] Hz\)"):
        Waves(str(tmp_path)).load(DataSettings(size=4))
    (tmp_path / "b.wav").write_bytes(b"no sound")
    with pytest.raises(CoviewError, match=r"b\.wav cannot be read"):
        Waves(str(tmp_path)).load(DataSettings(size=4))


def test_frames_are_pieces_of_the_window() -> None:
    component = FrameViews(
        FrameViews.Settings(window=20, frame=6, hop=4), Plan(channels=1, image_size=30)
    )
    signals = torch.arange(60.0).view(2, 1, 30)
    crops = component.evaluation_views(signals).crops
    assert component.layout.grid == (4, 1) and len(crops) == 4
    assert crops[1][1, 0].tolist() == [39.0, 40.0, 41.0, 42.0, 43.0, 44.0]
    starts = set()
    for number in range(40):
        views = component.generate_views(Batch(signals, torch.arange(2)), Step(number=number))
        start = int(views.crops[0][1, 0, 0]) - 30
        assert views.crops[3][1, 0].tolist() == [30.0 + start + 12 + n for n in range(6)]
        starts.add(start)
    assert starts <= set(range(11)) and len(starts) > 8


def test_the_papers_window_is_126_frames_that_the_convolutions_would_give() -> None:
    frame, hop = 1, 1
    for kernel, stride in zip(reversed(KERNELS), reversed(STRIDES), strict=True):
        frame, hop = (frame - 1) * stride + kernel, hop * stride
    settings = FrameViews.Settings()
    assert (settings.frame, settings.hop) == (frame, hop) == (465, 160)
    component = FrameViews(settings, Plan(channels=1, image_size=20480))
    assert component.layout.grid == (126, 1)
    torch.manual_seed(0)
    network, signal = StridedConvolutions(1, 4), torch.randn(1, 1, 20480)
    whole = network.layers(signal)[0].T
    frames = component.evaluation_views(signal).crops
    assert whole.shape == (126, 4)
    for place in (0, 1, 60, 125):
        torch.testing.assert_close(network(frames[place])[0], whole[place])


def trained(path: Path, **rest: Any) -> Any:
    return coview.train(
        "cpc-audio",
        data=f"wav:{tones(path / 'tones')}",
        out=path / "run",
        backbone="cpc-audio-narrow",
        batch_size=8,
        progress=False,
        set={
            "data.size": 3000,
            "views.window": 2500,
            "encoder.last": 4,
            "encoder.context_hidden": 16,
            "negatives.draws": 0,
            "optimizer.lr": 2e-3,
        },
        **rest,
    )


def test_sound_is_learnt(tmp_path: Path) -> None:
    run = trained(tmp_path, epochs=8, log_every=1)
    losses = [entry["loss"] for entry in run.metrics if "loss" in entry]
    # 13 frames a window, 8 windows.
    assert losses[0] == pytest.approx(math.log(8 * 13), abs=1e-4)
    assert losses[-1] < losses[0] - 0.3
    loaded = coview.load_backbone(run.path)
    signals = torch.rand(3, 1, 3000) - 0.5
    assert loaded(signals).shape == (3, 32)
    crops = run.method.components["views"].evaluation_views(signals).crops
    expected = torch.stack([run.method.encoder.trunk(crop) for crop in crops]).mean(0)
    torch.testing.assert_close(loaded(signals), expected)


def test_a_dry_run_measures_a_step_of_signals(tmp_path: Path) -> None:
    given = {"data": f"wav:{tones(tmp_path, samples=21_000)}", "device": "cpu"}
    changes = Changes(backbone="cpc-audio-narrow", batch_size=8)
    run = rehearse(Request(method="cpc-audio", changes=changes, settings=given))
    assert "126 views of 465 samples" in introduction(run)[1]
    weights = sum(p.numel() for p in run.method.parameters())
    # What every frame keeps comes on top of the weights, gradients and moments.
    assert (
        run.estimate.step_seconds > 0 and run.estimate.bytes > 4 * 4 * weights + 8 * 126 * 465 * 4
    )


def test_images_are_no_signals(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="take signals, but the data are images. Use --data wav"):
        coview.train("cpc-audio", data="digits", out=tmp_path / "a")
    write(tmp_path / "sounds" / "a.wav", [0.0])
    with pytest.raises(RequestError, match="take images, but the data are signals"):
        coview.train("cpc", data=f"wav:{tmp_path / 'sounds'}", out=tmp_path / "b")


def test_windows_that_do_not_fit() -> None:
    with pytest.raises(RequestError, match=r"a recording \(100"):
        FrameViews(FrameViews.Settings(), Plan(channels=1, image_size=100))


def test_a_window_is_a_slice_and_nothing_waits_for_where_it_starts() -> None:
    plan = Plan(channels=2, image_size=90, batch_size=16)
    views = FrameViews(FrameViews.Settings(window=60, frame=20, hop=20), plan)
    # Each sample is its own place, so that a frame tells where it was cut.
    signals = torch.arange(16 * 2 * 90, dtype=torch.float32).view(16, 2, 90)
    with Synchronisations() as seen:
        frames = views.generate_views(Batch(signals, torch.arange(16)), Step()).crops
    assert seen.found == []
    windows = torch.cat(frames, dim=-1)
    starts = [
        int(window[0, 0] - signal[0, 0]) for window, signal in zip(windows, signals, strict=True)
    ]
    expected = [s[:, start : start + 60] for s, start in zip(signals, starts, strict=True)]
    assert torch.equal(windows, torch.stack(expected))
    assert 0 <= min(starts) < max(starts) <= 30
