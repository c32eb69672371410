"""Images a second of SimCLR's views: fused, compiled, kornia's, torchvision's, lightly's.

    python benchmarks/views.py [--rounds 15] [--only 32 224] [--no-compile]

Two settings, as in SimCLR: CIFAR's (32 pixels, 256 images, colour strength 0.5, no
blur) and ImageNet's (256 pixels cropped to 224, 64 images, strength 1, blur of 23
taps). Every entrant makes one view of every image of a batch that is in memory,
as uint8 tensors or, for lightly and Pillow, as Pillow images. Results go to
results/views-DEVICE.json; ratios are of paired rounds. On a GPU the entrants that
work on the host are timed there; all tensors of the others are on the device.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import side_by_side

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SETTINGS: dict[int, dict[str, Any]] = {
    32: {"source": 32, "batch": 256, "strength": 0.5, "blur": False},
    224: {"source": 256, "batch": 64, "strength": 1.0, "blur": True},
}
# Resampling of each entrant; what is compiled says so in its name.
MODES = {
    "fused": "bilinear",
    "fused, compiled": "bilinear",
    "fused, sample order": "bilinear",
    "fused, bicubic": "bicubic",
    "fused, antialias": "bilinear, antialiased",
    "kornia backend": "bilinear",
    "kornia alone": "bilinear",
    "torchvision v2, image by image": "bilinear",
    "lightly inline": "bilinear, antialiased (Pillow)",
}
TARGETS = {32: {"lightly inline": 20.0, "kornia": 4.0}, 224: {"lightly inline": 3.0, "kornia": 2.3}}
DEFAULT = ("fused", "fused, compiled")


def entrants(
    size: int,
    device: str,
    compiled: bool,
    without: Sequence[str] = (),
    images: int | None = None,
) -> dict[str, Callable[[], Any]]:
    """Return by name what makes one view of a batch.

    Args:
        size: pixels a side, of SETTINGS.
        device: where views are made.
        compiled: with the compiled ones.
        without: those that are not installed.
        images: of the batch, in place of the setting.
    """
    import kornia.augmentation as kornia
    import torch

    from coview.plan import Plan
    from coview.records import Batch, Step
    from coview.views import Augmentation, CropViews

    chosen = SETTINGS[size]
    count, source, strength = images or chosen["batch"], chosen["source"], chosen["strength"]
    generator = torch.Generator().manual_seed(0)
    pixels = smooth(torch.rand(count, 3, 16, 16, generator=generator), source)
    batch = Batch(pixels.to(device), torch.arange(count, device=device))
    plan = Plan(image_size=source, mean=MEAN, std=STD)
    common: dict[str, Any] = {
        "size": size,
        "jitter": tuple(strength * s for s in (0.8, 0.8, 0.8, 0.2)),
        "blur_p": 0.5 if chosen["blur"] else 0.0,
        "blur_kernel": 23,
    }

    def ours(**more: Any) -> Callable[[], Any]:
        views = CropViews([Augmentation(**common, **more)], plan)
        numbers = iter(range(10**9))

        def once() -> Any:
            step = Step(number=next(numbers), device=device, component="views")
            with torch.no_grad():
                return views.generate_views(batch, step)

        return once

    jitter = kornia.ColorJitter(*(strength * s for s in (0.8, 0.8, 0.8, 0.2)), p=0.8)
    blur = [kornia.RandomGaussianBlur((23, 23), (0.1, 2.0), p=0.5)] if chosen["blur"] else []
    alone = kornia.AugmentationSequential(
        kornia.RandomResizedCrop((size, size), (0.08, 1.0), align_corners=False),
        kornia.RandomHorizontalFlip(),
        jitter,
        kornia.RandomGrayscale(p=0.2),
        *blur,
        kornia.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
        data_keys=["input"],
    )

    def kornia_alone() -> Any:
        with torch.no_grad():
            return alone(batch.images.float() / 255)

    found: dict[str, Callable[[], Any]] = {
        "fused": ours(compile="off"),
        "fused, sample order": ours(compile="off", jitter_order="sample"),
        "fused, bicubic": ours(compile="off", interpolation="bicubic"),
        "fused, antialias": ours(compile="off", antialias=True),
        "kornia backend": ours(backend="kornia"),
        "kornia alone": kornia_alone,
        "torchvision v2, image by image": torchvision_alone(chosen, size, pixels),
    }
    if "lightly inline" not in without:
        found["lightly inline"] = lightly_inline(chosen, size, pixels)
    if compiled:
        found["fused, compiled"] = ours(compile="on")
    return found


def smooth(noise: Any, size: int) -> Any:
    """Return uint8 images with the long waves of photographs rather than white noise."""
    import torch
    from torch.nn.functional import interpolate

    images = interpolate(noise, (size, size), mode="bicubic", align_corners=False)
    return (images.clamp(0, 1) * 255).to(torch.uint8)


def torchvision_alone(chosen: dict[str, Any], size: int, pixels: Any) -> Callable[[], Any]:
    """Return torchvision's transforms of uint8 tensors, one image after the other."""
    import torch
    import torchvision.transforms.v2 as tv

    strengths = [chosen["strength"] * s for s in (0.8, 0.8, 0.8, 0.2)]
    blur = [tv.RandomApply([tv.GaussianBlur(23, (0.1, 2.0))], 0.5)] if chosen["blur"] else []
    transform = tv.Compose(
        [
            tv.RandomResizedCrop(size, antialias=False),
            tv.RandomHorizontalFlip(),
            tv.RandomApply([tv.ColorJitter(*strengths)], 0.8),
            tv.RandomGrayscale(0.2),
            *blur,
            tv.ToDtype(torch.float32, scale=True),
            tv.Normalize(list(MEAN), list(STD)),
        ]
    )
    return lambda: torch.stack([transform(image) for image in pixels])


def lightly_inline(chosen: dict[str, Any], size: int, pixels: Any) -> Callable[[], Any]:
    """Return lightly's transform of one view of Pillow images, one after the other."""
    import torch
    from lightly.transforms.simclr_transform import SimCLRViewTransform
    from torchvision.transforms.functional import to_pil_image

    transform = SimCLRViewTransform(
        input_size=size,
        cj_strength=chosen["strength"],
        gaussian_blur=0.5 if chosen["blur"] else 0.0,
        normalize={"mean": list(MEAN), "std": list(STD)},
    )
    images = [to_pil_image(image) for image in pixels]
    return lambda: torch.stack([transform(image) for image in images])


def measure(size: int, rounds: int, device: str, compiled: bool) -> dict[str, Any]:
    """Alternate all entrants of one size."""
    found = entrants(size, device, compiled)
    seconds = side_by_side.alternate(found, rounds)
    count = SETTINGS[size]["batch"]
    kornia = min(("kornia backend", "kornia alone"), key=lambda name: sum(seconds[name]))
    rows = {
        f"{size} pixels, {name}": {
            "resampling": MODES[name],
            "compiled": "yes" if "compiled" in name else "no",
            "images/s": round(count / statistics.median(seconds[name])),
            "ms a batch": round(1e3 * statistics.median(seconds[name]), 2),
        }
        for name in found
    }
    ratios = [
        {
            **side_by_side.compared(seconds, name, other),
            "target": round(1 / target, 4),
            "times_as_fast": round(side_by_side.compared(seconds, other, name)["median"], 2),
        }
        for name in DEFAULT
        if name in found
        for other, target in (
            ("lightly inline", TARGETS[size]["lightly inline"]),
            (kornia, TARGETS[size]["kornia"]),
        )
    ]
    return {"settings": SETTINGS[size], "ratios": ratios, "rows": rows, "raw_seconds": seconds}


def show(size: int, result: dict[str, Any]) -> None:
    for name, row in sorted(result["rows"].items(), key=lambda item: -item[1]["images/s"]):
        print(f"{name:44} {row['resampling']:32} {row['images/s']:8} images/s")
    for ratio in result["ratios"]:
        low, high = ratio["interval_95"]
        print(
            f"{size} pixels, {ratio['of']} / {ratio['to']}: {ratio['median']:.4f} ({low:.4f} to "
            f"{high:.4f}), target {ratio['target']}; {ratio['times_as_fast']} times as fast"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", type=int, nargs="+", default=list(SETTINGS), choices=SETTINGS)
    parser.add_argument("--no-compile", action="store_true", help="leave the compiled rows out")
    arguments = parser.parse_args()
    side_by_side.steady_allocator()
    import torch

    from coview.nn.compile import has_compiler

    device = "cuda" if torch.cuda.is_available() else "cpu"
    compiled = has_compiler() and not arguments.no_compile
    figures: dict[str, Any] = {}
    summary: dict[str, Any] = {}
    for size in arguments.only:
        result = measure(size, arguments.rounds, device, compiled)
        show(size, result)
        summary |= result.pop("rows")
        figures[f"{size} pixels"] = result
    facts = side_by_side.facts(arguments.rounds)
    name = f"views-{device}"
    print(side_by_side.write(name, {**facts, "figures": figures, "summary": summary}))


if __name__ == "__main__":
    main()
