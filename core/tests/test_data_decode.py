from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from coview.data import decode as module
from coview.data.decode import Files, Fitted, decode, decode_all, fit, fit_all, pixels
from coview.errors import CoviewError

SHADES = np.arange(16, dtype=np.uint8).reshape(4, 4) * 16
COLOURS = np.stack([SHADES, SHADES[::-1], 255 - SHADES], axis=-1)
ALPHA = np.arange(16, dtype=np.uint8).reshape(4, 4) * 10


def with_alpha(colours: np.ndarray) -> np.ndarray:
    return np.dstack([colours, ALPHA])


def palette(transparency: int | bytes | None = None) -> Image.Image:
    image = Image.fromarray(COLOURS).quantize(16)
    if transparency is not None:
        image.info["transparency"] = transparency
    return image


def luma(rgb: torch.Tensor) -> torch.Tensor:
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    return (rgb.float() * weights).sum(0, keepdim=True).round()


def saved(path: Path, image: Image.Image, **options: object) -> torch.Tensor:
    image.save(path, **options)
    return decode(str(path), 4, 3)


SHADES3 = torch.from_numpy(SHADES).expand(3, 4, 4)
COLOURS3 = torch.from_numpy(COLOURS).permute(2, 0, 1)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp", "PNG", "TIF"])
def test_lossless_formats_keep_every_colour(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True} if suffix == "webp" else {}
    seen = saved(tmp_path / f"a.{suffix}", Image.fromarray(COLOURS), **options)
    assert seen.dtype == torch.uint8 and torch.equal(seen, COLOURS3)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_is_close(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGB", (16, 16), (200, 100, 50)).convert(mode)
    image.save(tmp_path / "a.jpg", quality=100)
    seen = decode(str(tmp_path / "a.jpg"), 16, 3)[:, 8, 8].tolist()
    assert seen == pytest.approx([200, 100, 50] if mode != "L" else [124] * 3, abs=4)


def test_grey_is_repeated(tmp_path: Path) -> None:
    assert torch.equal(saved(tmp_path / "a.png", Image.fromarray(SHADES)), SHADES3)


def test_alpha_is_dropped_not_blended(tmp_path: Path) -> None:
    rgba, la = Image.fromarray(with_alpha(COLOURS)), Image.fromarray(with_alpha(SHADES))
    assert (rgba.mode, la.mode) == ("RGBA", "LA")
    assert torch.equal(saved(tmp_path / "rgba.png", rgba), COLOURS3)
    assert torch.equal(saved(tmp_path / "la.png", la), SHADES3)


@pytest.mark.parametrize("transparency", [None, 3, bytes(range(0, 160, 10))])
@pytest.mark.parametrize("channels", [1, 3])
def test_palette(tmp_path: Path, transparency: int | bytes | None, channels: int) -> None:
    options = {} if transparency is None else {"transparency": transparency}
    palette().save(tmp_path / "a.png", **options)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P" and ("transparency" in image.info) == bool(options)
    seen = decode(str(tmp_path / "a.png"), 4, channels).float()
    assert (seen - (COLOURS3 if channels == 3 else luma(COLOURS3))).abs().max() <= 1


def test_transparent_colour_of_grey_and_rgb(tmp_path: Path) -> None:
    grey = saved(tmp_path / "l.png", Image.fromarray(SHADES), transparency=16)
    assert torch.equal(grey, SHADES3)
    colour = Image.fromarray(COLOURS)
    assert torch.equal(saved(tmp_path / "c.png", colour, transparency=(0, 192, 255)), COLOURS3)
    assert (decode(str(tmp_path / "c.png"), 4, 1) - luma(COLOURS3)).abs().max() <= 1


def test_one_bit(tmp_path: Path) -> None:
    bits = SHADES > 100
    seen = saved(tmp_path / "a.png", Image.fromarray(bits))
    assert torch.equal(seen[0], torch.from_numpy(bits).to(torch.uint8) * 255)


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path, suffix: str, channels: int) -> None:
    deep = SHADES.astype(np.uint16) * 257 + 100
    Image.fromarray(deep).save(tmp_path / f"a.{suffix}")
    seen = decode(str(tmp_path / f"a.{suffix}"), 4, channels)
    assert torch.equal(seen, SHADES3[:channels])


def test_integers_of_32_bits(tmp_path: Path) -> None:
    deep = Image.fromarray(SHADES.astype(np.int32) * 257)
    assert deep.mode == "I"
    assert torch.equal(saved(tmp_path / "a.tiff", deep), SHADES3)
    beyond = Image.fromarray(SHADES.astype(np.int32) * 1000)
    with pytest.raises(CoviewError, match=r"b\.tiff .*from 0 to 240000, not within 0 to 65535"):
        saved(tmp_path / "b.tiff", beyond)


@pytest.mark.parametrize("scale", [1.0, 255.0])
def test_floats_up_to_1_or_255(tmp_path: Path, scale: float) -> None:
    floats = Image.fromarray((SHADES / 255 * scale).astype(np.float32))
    assert floats.mode == "F"
    assert torch.equal(saved(tmp_path / "a.tiff", floats), SHADES3)


@pytest.mark.parametrize("bad", [-1.0, 256.0, float("nan")])
def test_floats_out_of_range_are_refused(tmp_path: Path, bad: float) -> None:
    with pytest.raises(CoviewError, match="its values run from"):
        saved(tmp_path / "a.tiff", Image.fromarray(np.array([[0.5, bad]], np.float32)))


@pytest.mark.parametrize("mode", ["YCbCr", "LAB", "HSV", "CMYK", "RGBX"])
def test_other_modes_become_rgb_as_pil_does(mode: str) -> None:
    image = Image.fromarray(COLOURS)
    image = image.convert(mode) if mode != "LAB" else Image.new("LAB", (4, 4), (128, 10, 20))
    expected = v2.functional.pil_to_tensor(image.convert("RGB"))
    assert torch.equal(pixels(image, 3), expected)
    assert (pixels(image, 1) - luma(expected)).abs().max() <= 1


def test_colour_to_grey_is_luma() -> None:
    assert (pixels(Image.fromarray(COLOURS), 1) - luma(COLOURS3)).abs().max() <= 1
    assert (fit(COLOURS3, 4, 1) - luma(COLOURS3)).abs().max() <= 1
    # Rounded down it would be 254, and a white page would be grey.
    assert fit(torch.full((3, 2, 2), 255, dtype=torch.uint8), 2, 1).unique().tolist() == [255]


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (50, 50), (7, 9)])
def test_fit_is_resize_and_centre_crop(shape: tuple[int, int]) -> None:
    image = torch.randint(0, 256, (3, *shape), dtype=torch.uint8)
    expected = v2.Compose([v2.Resize(16, antialias=True), v2.CenterCrop(16)])(image)
    assert torch.equal(fit(image, 16, 3), expected)


def test_shrinking_is_antialiased() -> None:
    stripes = torch.zeros(1, 64, 64, dtype=torch.uint8)
    stripes[..., ::2] = 255
    inner = fit(stripes, 16, 1)[..., 2:-2].float()
    assert inner.sub(127.5).abs().max() < 2


def test_fit_all_equals_one_by_one_and_is_contiguous() -> None:
    images = torch.randint(0, 256, (module.CHUNK + 6, 1, 9, 12), dtype=torch.uint8)
    whole = fit_all(images, 8, 3)
    lazily = Fitted(images, 8, 3)
    assert whole.is_contiguous() and whole.shape == (len(lazily), 3, 8, 8)
    assert torch.equal(whole, torch.stack([lazily[i] for i in range(len(lazily))]))


def test_decode_all_keeps_the_order(tmp_path: Path) -> None:
    shades = range(module.CHUNK + 10)
    paths = tuple(str(tmp_path / f"{shade}.png") for shade in shades)
    for shade, path in zip(shades, paths, strict=True):
        Image.new("L", (2, 2), shade).save(path)
    files = pickle.loads(pickle.dumps(Files(paths, 2, 1)))
    assert decode_all(files, workers=3)[:, 0, 0, 0].tolist() == list(shades)


def damaged(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("suffix", ["png", "jpg", "tiff", "bmp", "webp"])
def test_a_damaged_image_is_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"broken.{suffix}"
    Image.fromarray(np.random.RandomState(0).randint(0, 256, (64, 64, 3), np.uint8)).save(path)
    damaged(path)
    with pytest.raises(CoviewError, match=rf"image .*broken\.{suffix} cannot be decoded: \w+"):
        decode(str(path), 8, 3)


@pytest.mark.parametrize("content", [b"", b"no image at all"])
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "text.png").write_bytes(content)
    with pytest.raises(CoviewError, match=r"text\.png cannot be decoded"):
        decode_all(Files((str(tmp_path / "text.png"),), 8, 3))


@pytest.mark.parametrize("limit", [10, 50])
@pytest.mark.filterwarnings("default::PIL.Image.DecompressionBombWarning")
def test_decompression_bombs_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, recwarn: pytest.WarningsRecorder
) -> None:
    # PIL raises above twice the limit, and warns above it.
    Image.new("L", (8, 8)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(CoviewError, match=r"bomb\.png cannot be decoded: .*(pixels|64)"):
        decode(str(tmp_path / "bomb.png"), 8, 3)


def test_decompression_bomb_warning_as_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    with pytest.raises(CoviewError, match=r"bomb\.png cannot be decoded: .*64 pixels"):
        decode(str(tmp_path / "bomb.png"), 8, 3)
