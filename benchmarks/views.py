"""Images a second of SimCLR's views: fused, compiled, kornia's, torchvision's, lightly's."""

import importlib.util
from typing import Any

import kornia.augmentation as kornia
import torch
import torchvision.transforms.v2 as tv
from torch.nn.functional import interpolate

import coview
from benchmarks import engine, runner
from coview.views import Augmentation, CropViews

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SETTINGS = {size: design for size, design in runner.DESIGN["views"].items() if size.isdigit()}
RESAMPLING = runner.DESIGN["views"]["resampling"]
DEFAULT = ("fused", "fused, compiled", "triton")
OPTIONS = {"rounds": 15, "rows": SETTINGS, "no_compile": False, "steady": True}


def main(asked: runner.Asked) -> None:
    device, count = engine.device(), 4 if asked.quick else None
    compiled = engine.has_compiler() and not asked.no_compile

    def measure(size: str) -> dict[str, Any]:
        seconds = runner.alternate(entrants(size, device, compiled, count), asked.rounds)
        figures = {"settings": SETTINGS[size], "ratios": ratios(size, seconds)}
        table = rows(f"{size} pixels", count or SETTINGS[size]["batch"], seconds)
        figures = {f"{size} pixels": {**figures, "raw_seconds": seconds}}
        return {"figures": figures, "summary": table}

    runner.rows(asked, {}, measure, f"views-{device}")


def rows(title: str, count: int, seconds: runner.Times) -> dict[str, Any]:
    return {
        f"{title}, {name}": {
            "resampling": RESAMPLING.get(name, "bilinear"),
            "compiled": "yes" if "compiled" in name else "no",
            "images/s": round(count / median),
            "ms a batch": round(1e3 * median, 2),
        }
        for name, median in runner.medians(seconds).items()
    }


def ratios(size: str, seconds: runner.Times) -> list[dict[str, Any]]:
    found = []
    for peer, target in SETTINGS[size]["targets"].items():
        others = [other for other in seconds if other.startswith(peer)]
        other = min(others, key=lambda one: sum(seconds[one]), default=None)
        for name in DEFAULT:
            if other and name in seconds:
                fast = runner.compared(seconds, other, name)[0]["median"]
                more = {"target": round(1 / target, 4), "times_as_fast": round(fast, 2)}
                found.append({**runner.compared(seconds, name, other)[0], **more})
    return found


def entrants(size: str, device: str, compiled: bool, images: int | None = None) -> runner.Entrants:
    """Return by name what makes one view of a batch; what is not installed is left out."""
    chosen, side = SETTINGS[size], int(size)
    jitter = tuple(chosen["strength"] * s for s in (0.8, 0.8, 0.8, 0.2))
    # The long waves of photographs rather than white noise.
    generator, source = torch.Generator().manual_seed(0), chosen["source"]
    noise = torch.rand(images or chosen["batch"], 3, 16, 16, generator=generator)
    smooth = interpolate(noise, (source, source), mode="bicubic", align_corners=False)
    pixels = (smooth.clamp(0, 1) * 255).to(torch.uint8)
    batch = coview.Batch(pixels.to(device), torch.arange(len(pixels), device=device))
    plan = coview.Plan(image_size=source, mean=MEAN, std=STD)
    common = {"size": side, "jitter": jitter, "blur_p": 0.5 * chosen["blur"], "blur_kernel": 23}

    def ours(more: dict[str, Any]) -> runner.Once:
        views, numbers = CropViews([Augmentation(**common, **more)], plan), iter(range(10**9))

        @torch.no_grad()
        def once() -> Any:
            step = coview.Step(number=next(numbers), device=device, component="views")
            return views.generate_views(batch, step)

        return once

    alone, one = kornia_and_torchvision(side, jitter, chosen["blur"])
    settings = runner.DESIGN["views"]["ours"]
    without = set() if compiled else {"fused, compiled"}
    if device != "cuda" or not importlib.util.find_spec("coview_triton"):
        without.add("triton")
    able = {name: more for name, more in settings.items() if name not in without}
    found = {name: ours(more) for name, more in able.items()}
    found["kornia alone"] = torch.no_grad()(lambda: alone(batch.images.float() / 255))
    found["torchvision v2, image by image"] = lambda: torch.stack([one(image) for image in pixels])
    if importlib.util.find_spec("lightly"):
        from lightly.transforms.simclr_transform import SimCLRViewTransform

        colours = {"cj_strength": chosen["strength"], "gaussian_blur": 0.5 * chosen["blur"]}
        normal = {"mean": list(MEAN), "std": list(STD)}
        theirs = SimCLRViewTransform(input_size=side, normalize=normal, **colours)
        pictures = [tv.functional.to_pil_image(image) for image in pixels]
        found["lightly inline"] = lambda: torch.stack([theirs(picture) for picture in pictures])
    return found


def kornia_and_torchvision(size: int, jitter: tuple[float, ...], blur: bool) -> tuple[Any, Any]:
    batched = kornia.AugmentationSequential(
        kornia.RandomResizedCrop((size, size), (0.08, 1.0), align_corners=False),
        kornia.RandomHorizontalFlip(),
        kornia.ColorJitter(*jitter, p=0.8),
        kornia.RandomGrayscale(p=0.2),
        *([kornia.RandomGaussianBlur((23, 23), (0.1, 2.0), p=0.5)] if blur else []),
        kornia.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
        data_keys=["input"],
    )
    steps = [tv.RandomResizedCrop(size, antialias=False), tv.RandomHorizontalFlip()]
    steps += [tv.RandomApply([tv.ColorJitter(*jitter)], 0.8), tv.RandomGrayscale(0.2)]
    steps += [tv.RandomApply([tv.GaussianBlur(23, (0.1, 2.0))], 0.5)] if blur else []
    steps += [tv.ToDtype(torch.float32, scale=True), tv.Normalize(list(MEAN), list(STD))]
    return batched, tv.Compose(steps)
