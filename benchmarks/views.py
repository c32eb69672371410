"""Images a second of SimCLR's views: fused, compiled, kornia's, torchvision's, lightly's."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import kornia.augmentation as kornia
import torch
import torchvision.transforms.v2 as tv
from torch import Tensor
from torch.nn.functional import interpolate

import coview
from benchmarks import engine, runner
from coview.views import Augmentation, CropViews

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SETTINGS = runner.DESIGN["views"]
# Settings of coview's own entrants.
OURS: dict[str, dict[str, Any]] = {
    "fused": {"compile": "off"},
    "fused, sample order": {"compile": "off", "jitter_order": "sample"},
    "fused, bicubic": {"compile": "off", "interpolation": "bicubic"},
    "fused, antialias": {"compile": "off", "antialias": True},
    "kornia backend": {"backend": "kornia"},
    "fused, compiled": {"compile": "on"},
}
# Resampling of those that are not bilinear.
MODES = {
    "fused, bicubic": "bicubic",
    "fused, antialias": "bilinear, antialiased",
    "lightly inline": "bilinear, antialiased (Pillow)",
}
DEFAULT = ("fused", "fused, compiled")
OPTIONS = {"rounds": 15, "rows": SETTINGS, "no_compile": False, "steady": True}


def main(asked: runner.Asked) -> None:
    device = runner.device()
    compiled = engine.has_compiler() and not asked.no_compile

    def measure(size: str) -> dict[str, Any]:
        made = entrants(size, device, compiled, 4 if asked.quick else None)
        seconds = runner.alternate(made, asked.rounds)
        table = rows(size, 4 if asked.quick else SETTINGS[size]["batch"], seconds)
        figures = {"settings": SETTINGS[size], "ratios": ratios(size, seconds)}
        figures["raw_seconds"] = seconds
        return {"figures": {f"{size} pixels": figures}, "summary": table}

    runner.rows(asked, {}, measure, f"views-{device}")


def rows(size: str, count: int, seconds: runner.Times) -> dict[str, Any]:
    """Return the rows of the table."""
    return {
        f"{size} pixels, {name}": {
            "resampling": MODES.get(name, "bilinear"),
            "compiled": "yes" if "compiled" in name else "no",
            "images/s": round(count / median),
            "ms a batch": round(1e3 * median, 2),
        }
        for name, median in runner.medians(seconds).items()
    }


def ratios(size: str, seconds: runner.Times) -> list[dict[str, Any]]:
    """Return the times of what is the default beside those that have a target."""
    found = []
    for name in DEFAULT:
        for peer, target in SETTINGS[size]["targets"].items():
            others = [other for other in seconds if other.startswith(peer)]
            if name in seconds and others:
                other = min(others, key=lambda one: sum(seconds[one]))
                fast = round(runner.compared(seconds, other, name)["median"], 2)
                more = {"target": round(1 / target, 4), "times_as_fast": fast}
                found.append({**runner.compared(seconds, name, other), **more})
    return found


def entrants(size: str, device: str, compiled: bool, images: int | None = None) -> runner.Entrants:
    """Return by name what makes one view of a batch; what is not installed is left out.

    Args:
        size: pixels a side, of SETTINGS.
        device: where views are made.
        compiled: with the compiled ones.
        images: of the batch, in place of the setting.
    """
    chosen, side = SETTINGS[size], int(size)
    jitter = tuple(chosen["strength"] * s for s in (0.8, 0.8, 0.8, 0.2))
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(images or chosen["batch"], 3, 16, 16, generator=generator)
    pixels = smooth(noise, chosen["source"])
    batch = coview.Batch(pixels.to(device), torch.arange(len(pixels), device=device))
    plan = coview.Plan(image_size=chosen["source"], mean=MEAN, std=STD)
    common = {"size": side, "jitter": jitter, "blur_p": 0.5 * chosen["blur"], "blur_kernel": 23}

    def ours(more: dict[str, Any]) -> Callable[[], Any]:
        views, numbers = CropViews([Augmentation(**common, **more)], plan), iter(range(10**9))

        def once() -> Any:
            step = coview.Step(number=next(numbers), device=device, component="views")
            with torch.no_grad():
                return views.generate_views(batch, step)

        return once

    alone = kornia_alone(side, jitter, chosen["blur"])
    image_by_image = torchvision_alone(side, jitter, chosen["blur"])
    found = {
        **{
            name: ours(more)
            for name, more in OURS.items()
            if compiled or more.get("compile") != "on"
        },
        "kornia alone": torch.no_grad()(lambda: alone(batch.images.float() / 255)),
        "torchvision v2, image by image": lambda: torch.stack([*map(image_by_image, pixels)]),
    }
    if importlib.util.find_spec("lightly"):
        found["lightly inline"] = lightly_inline(side, chosen, pixels)
    return found


def smooth(noise: Tensor, size: int) -> Tensor:
    """Return uint8 images with the long waves of photographs rather than white noise."""
    images = interpolate(noise, (size, size), mode="bicubic", align_corners=False)
    return (images.clamp(0, 1) * 255).to(torch.uint8)


def kornia_alone(size: int, jitter: tuple[float, ...], blur: bool) -> Any:
    """Return kornia's augmentations of a batch."""
    return kornia.AugmentationSequential(
        kornia.RandomResizedCrop((size, size), (0.08, 1.0), align_corners=False),
        kornia.RandomHorizontalFlip(),
        kornia.ColorJitter(*jitter, p=0.8),
        kornia.RandomGrayscale(p=0.2),
        *([kornia.RandomGaussianBlur((23, 23), (0.1, 2.0), p=0.5)] if blur else []),
        kornia.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
        data_keys=["input"],
    )


def torchvision_alone(size: int, jitter: tuple[float, ...], blur: bool) -> Any:
    """Return torchvision's transforms of one uint8 tensor."""
    return tv.Compose(
        [
            tv.RandomResizedCrop(size, antialias=False),
            tv.RandomHorizontalFlip(),
            tv.RandomApply([tv.ColorJitter(*jitter)], 0.8),
            tv.RandomGrayscale(0.2),
            *([tv.RandomApply([tv.GaussianBlur(23, (0.1, 2.0))], 0.5)] if blur else []),
            tv.ToDtype(torch.float32, scale=True),
            tv.Normalize(list(MEAN), list(STD)),
        ]
    )


def lightly_inline(size: int, chosen: dict[str, Any], pixels: Tensor) -> Callable[[], Any]:
    """Return lightly's transform of one view of Pillow images, one after the other."""
    from lightly.transforms.simclr_transform import SimCLRViewTransform
    from torchvision.transforms.functional import to_pil_image

    transform = SimCLRViewTransform(
        input_size=size,
        cj_strength=chosen["strength"],
        gaussian_blur=0.5 * chosen["blur"],
        normalize={"mean": list(MEAN), "std": list(STD)},
    )
    images = [to_pil_image(image) for image in pixels]
    return lambda: torch.stack([transform(image) for image in images])
