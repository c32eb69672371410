"""Images inside the page, as data URIs."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image, features
from torch import Tensor
from torchvision.transforms.v2.functional import to_pil_image


def of_pixels(pixels: Tensor, side: int) -> str:
    """Return an image (C, H, W) in [0, 1], at most ``side`` pixels a side, as a data URI."""
    three = pixels if len(pixels) == 3 else pixels.mean(dim=0, keepdim=True)
    image = to_pil_image(three.float().clamp(0, 1).cpu())
    if max(image.size) > side:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return _encoded(image)


def of_file(path: Path, widest: int = 1600) -> str:
    """Return a picture in a file, at most ``widest`` pixels wide, as a data URI."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    if image.width > widest:
        image = image.resize((widest, round(image.height * widest / image.width)))
    return _encoded(image)


def _encoded(image: Image.Image) -> str:
    buffer = io.BytesIO()
    # Pillow's wheels have WebP; a Pillow that was built otherwise may not.
    if features.check("webp"):
        image.save(buffer, "webp", quality=82, method=4)
        kind = "webp"
    else:
        image.save(buffer, "png", optimize=True)
        kind = "png"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
