from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms import v2

from coview.data import decode as module
from coview.data.decode import Files, Fitted, decode, decode_all, fit, fit_all, pixels
from coview.data.pillow import opened
from coview.data.values import Reading
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


def over(colours: torch.Tensor, ground: int = 255) -> torch.Tensor:
    """Lay colours with the alpha above over a grey background."""
    alpha = torch.from_numpy(ALPHA).float() / 255
    return colours * alpha + ground * (1 - alpha)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_alpha_is_laid_over_a_background(tmp_path: Path, suffix: str, channels: int) -> None:
    rgba, la = Image.fromarray(with_alpha(COLOURS)), Image.fromarray(with_alpha(SHADES))
    assert (rgba.mode, la.mode) == ("RGBA", "LA")
    options = {"lossless": True, "exact": True} if suffix == "webp" else {}
    for image, colours in ((rgba, COLOURS3), (la, SHADES3)):
        image.save(path := tmp_path / f"a.{suffix}", **options)
        white = decode(str(path), 4, channels)
        wanted = over(colours) if channels == 3 else luma(over(colours))
        assert (white - wanted).abs().max() <= 1.5
        assert int(white.min()) > 80, "nothing shines through where nothing was painted"
        grey = decode(str(path), 4, channels, Reading(background="#808080"))
        wanted = over(colours, 128) if channels == 3 else luma(over(colours, 128))
        assert (grey - wanted).abs().max() <= 1.5
        dropped = decode(str(path), 4, channels, Reading(background="drop"))
        wanted = colours if channels == 3 else luma(colours)
        assert (dropped - wanted).abs().max() <= (0 if channels == 3 else 1)


def test_what_is_opaque_keeps_its_colours(tmp_path: Path) -> None:
    opaque = Image.fromarray(np.dstack([COLOURS, np.full((4, 4), 255, np.uint8)]))
    assert torch.equal(saved(tmp_path / "a.png", opaque), COLOURS3)


@pytest.mark.parametrize("transparency", [None, 3, bytes(range(0, 160, 10))])
@pytest.mark.parametrize("channels", [1, 3])
def test_palette(tmp_path: Path, transparency: int | bytes | None, channels: int) -> None:
    options = {} if transparency is None else {"transparency": transparency}
    palette().save(tmp_path / "a.png", **options)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "P" and ("transparency" in image.info) == bool(options)
    seen = decode(str(tmp_path / "a.png"), 4, channels, Reading(background="drop")).float()
    assert (seen - (COLOURS3 if channels == 3 else luma(COLOURS3))).abs().max() <= 1
    with Image.open(tmp_path / "a.png") as image:
        ground = Image.new("RGBA", image.size, "red")
        laid = Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")
    expected = torch.from_numpy(np.array(laid)).permute(2, 0, 1)
    seen = decode(str(tmp_path / "a.png"), 4, channels, Reading(background="red"))
    assert (seen - (expected if channels == 3 else luma(expected))).abs().max() <= 1
    assert transparency is None or (expected != COLOURS3).any()


def test_transparent_colour_of_grey_and_rgb(tmp_path: Path) -> None:
    drop, whitened = Reading(background="drop"), SHADES3.clone()
    whitened[SHADES3 == 16] = 255
    grey = saved(tmp_path / "l.png", Image.fromarray(SHADES), transparency=16)
    assert torch.equal(grey, whitened)
    assert torch.equal(decode(str(tmp_path / "l.png"), 4, 3, drop), SHADES3)
    whitened = COLOURS3.clone()
    whitened[:, 0, 0] = 255
    colour = Image.fromarray(COLOURS)
    assert torch.equal(saved(tmp_path / "c.png", colour, transparency=(0, 192, 255)), whitened)
    assert torch.equal(decode(str(tmp_path / "c.png"), 4, 3, drop), COLOURS3)
    assert (decode(str(tmp_path / "c.png"), 4, 1, drop) - luma(COLOURS3)).abs().max() <= 1
    deep = Image.fromarray(SHADES.astype(np.uint16) * 257)
    seen = saved(tmp_path / "d.png", deep, transparency=16 * 257)
    assert seen[:, 0].tolist() == [[0, 255, 32, 48]] * 3
    assert torch.equal(decode(str(tmp_path / "d.png"), 4, 3, drop), SHADES3)


def test_the_users_own_image_is_left_as_it_is(tmp_path: Path) -> None:
    Image.fromarray(SHADES).save(tmp_path / "l.png", transparency=16)
    with Image.open(tmp_path / "l.png") as image:
        first = pixels(image, 3, Reading(background="drop"))
        assert image.info["transparency"] == 16
        assert torch.equal(first, pixels(image, 3, Reading(background="drop")))


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


@pytest.mark.parametrize("scale", [1.0, 255.0, 3.0])
def test_floats_up_to_1_or_what_the_set_says(tmp_path: Path, scale: float) -> None:
    floats = Image.fromarray((SHADES / 255 * scale).astype(np.float32))
    assert floats.mode == "F"
    floats.save(tmp_path / "a.tiff")
    reading = Reading(range=f"0,{scale}")
    assert torch.equal(decode(str(tmp_path / "a.tiff"), 4, 3, reading), SHADES3)
    if scale > 1:
        with pytest.raises(CoviewError, match="within 0 to 1; to use them: --set data.range="):
            decode(str(tmp_path / "a.tiff"), 4, 3)


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
def test_the_limit_is_ours_and_says_how_to_change_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    # PIL raises above twice its own limit, and warns above it, which the tests make an error.
    Image.new("L", (8, 8), 7).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(CoviewError, match=r"bomb\.png .*8 x 8 pixels.* data\.max_pixels=64"):
        decode(str(tmp_path / "bomb.png"), 8, 3, Reading(max_pixels=63))
    assert (decode(str(tmp_path / "bomb.png"), 8, 3, Reading(max_pixels=64)) == 7).all()
    assert limit == Image.MAX_IMAGE_PIXELS, "the user's own limit is put back"


def test_no_warning_of_pillow_leaks_out(tmp_path: Path) -> None:
    Image.new("L", (8, 8), 7).save(tmp_path / "a.png")

    def warn() -> None:
        warnings.warn_explicit("odd", UserWarning, "f.py", 1, module="PIL.TiffImagePlugin")

    with opened(str(tmp_path / "a.png")), opened(str(tmp_path / "a.png")):
        warn()
        with pytest.raises(UserWarning, match="mine"):
            warnings.warn("mine", stacklevel=1)
    with pytest.raises(UserWarning, match="odd"):
        warn()


def test_large_photographs_are_decoded_at_a_fraction(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGE", 1000 * 1000)
    shades = np.linspace(0, 255, 1600).astype(np.uint8)
    Image.fromarray(np.tile(shades, (1200, 1))).save(tmp_path / "a.jpg", quality=95)
    drafts = []
    monkeypatch.setattr(
        module, "pixels", lambda image, *rest: drafts.append(image.size) or pixels(image, *rest)
    )
    seen = decode(str(tmp_path / "a.jpg"), 64, 1)
    assert drafts == [(200, 150)]
    monkeypatch.setattr(module, "LARGE", 10**9)
    assert (decode(str(tmp_path / "a.jpg"), 64, 1).int() - seen.int()).abs().max() <= 3


SIDES = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, suffix: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.kron(SIDES, np.ones((16, 16), np.uint8)))
    options = {"quality": 100, **({"lossless": True} if suffix == "webp" else {})}
    if suffix in ("png", "tif"):
        options = {}
    image.save(path := tmp_path / f"a.{suffix}", exif=exif, **options)
    # Pillow turns a TIFF file itself, and again if it is asked to; and given a path, scrambles it.
    with path.open("rb") as file, Image.open(file) as stored:
        turned = stored if suffix == "tif" else ImageOps.exif_transpose(stored)
        expected = np.asarray(turned.convert("L"))
    seen = decode(str(path), 64, 1, Reading())[0].int()
    size = expected.shape
    assert (seen - fit(torch.from_numpy(expected.copy())[None], 64, 1)[0].int()).abs().max() <= 1
    assert size == ((48, 64) if orientation < 5 else (64, 48))
    if suffix != "tif":  # Pillow itself turns TIFF files
        ignored = decode(str(path), 64, 1, Reading(orientation="ignore"))[0].int()
        plain = fit(torch.from_numpy(np.asarray(image).copy())[None], 64, 1)[0].int()
        assert (ignored - plain).abs().max() <= 6


def test_damaged_exif_does_not_make_a_damaged_image(tmp_path: Path) -> None:
    Image.fromarray(COLOURS).save(tmp_path / "a.png", exif=b"Exif\0\0MM\0*garbage and more of it")
    assert torch.equal(decode(str(tmp_path / "a.png"), 4, 3), COLOURS3)
