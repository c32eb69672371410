"""What is said of a view is what was done to its image."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

import coview
from coview.views import noted

QUIET: dict[str, Any] = {
    **{"jitter": (0.0, 0.0, 0.0, 0.0), "grey_p": 0.0, "blur_p": 0.0},
    **{"solarize_p": 0.0, "normalize": False, "interpolation": "bilinear"},
}
ORDERS = [("crop", "flip"), ("flip", "crop")]
LUMA = torch.tensor([0.2989, 0.587, 0.114]).view(3, 1, 1)


def pixels(count: int, side: int = 20) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    coarse = torch.rand(count, 3, 5, 5, generator=generator)
    return (tv.resize(coarse, [side, side], antialias=True) * 255).byte()


def made(
    batch: coview.Batch, seed: int = 0, **chosen: Any
) -> tuple[tuple[Tensor, ...], list[noted.Note]]:
    fit = "square" if batch.extents is None else "whole"
    plan = coview.Plan(image_size=20, mean=(0.5,) * 3, std=(0.25,) * 3, fit=fit)
    views = coview.component("views", "simclr", plan=plan, **{**QUIET, "size": 12, **chosen})
    step = coview.Step(number=3, seed=seed, component="views")
    with noted.noting() as notes:
        crops = views.generate_views(batch, step).crops
    return crops, notes


def said(notes: list[noted.Note], view: int, row: int) -> noted.Fired:
    found = noted.fired(notes, view, row)
    assert found is not None
    return found


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
@given(seed=st.integers(0, 2**31))
@settings(max_examples=20, deadline=None)
def test_a_crop_is_where_it_is_said_to_be(order: tuple[str, ...], seed: int) -> None:
    images = pixels(4)
    crops, notes = made(coview.Batch(images, torch.arange(4)), seed, order=order)
    for view, crop in enumerate(crops):
        for row in range(4):
            done = said(notes, view, row)
            assert done.box is not None and done.words in ((), ("flip",))
            box = [int(value) for value in done.box]
            alone = tv.resized_crop(images[row] / 255, *box, [12, 12], antialias=False)
            expected = alone.flip(-1) if done.words else alone
            torch.testing.assert_close(crop[row], expected, atol=1e-4, rtol=0)


def test_a_crop_of_a_whole_image_is_where_it_is_said_to_be() -> None:
    shapes = [(40, 30), (25, 60), (33, 33)]
    whole = [pixels(1, 64)[0, :, :height, :width] for height, width in shapes]
    flat = torch.cat([image.permute(1, 2, 0).reshape(-1, 3) for image in whole])
    starts = torch.tensor([0, 1200, 2700])[:, None]
    extents = torch.cat([starts, torch.tensor(shapes)], 1)
    crops, notes = made(coview.Batch(flat, torch.arange(3), extents=extents), order=ORDERS[0])
    for view, crop in enumerate(crops):
        for row, image in enumerate(whole):
            done = said(notes, view, row)
            assert done.box is not None
            box = [int(value) for value in done.box]
            alone = tv.resized_crop(image, *box, [12, 12], antialias=True) / 255
            expected = alone.flip(-1) if done.words else alone
            torch.testing.assert_close(crop[row], expected, atol=2 / 255, rtol=0)


@pytest.mark.parametrize("seed", range(4))  # of these some give the views different orders
def test_words_say_how_much_and_in_which_order(seed: int) -> None:
    batch = coview.Batch(pixels(40), torch.arange(40))
    jitter = {"jitter": (0.8, 0.8, 0.0, 0.0), "grey_p": 0.5}
    crops, notes = made(batch, seed, order=("jitter", "grey"), size=20, **jitter)
    seen = set()
    for view, crop in enumerate(crops):
        for row in range(40):
            expected, done = batch.images[row] / 255, said(notes, view, row)
            assert done.box is None
            for word in done.words:
                name, *value = word.split()
                seen.add(name)
                if name == "brightness":
                    expected = (expected * float(value[0])).clamp(0, 1)
                elif name == "contrast":
                    mean = (expected * LUMA).sum(0).mean()
                    expected = (expected - mean).mul(float(value[0])).add(mean).clamp(0, 1)
                else:
                    assert word == "grey"
                    expected = (expected * LUMA).sum(0, keepdim=True).expand(3, -1, -1)
            torch.testing.assert_close(crop[row], expected, atol=0.01, rtol=0)
    assert seen == {"brightness", "contrast", "grey"}


def test_every_operation_has_its_word_and_those_that_do_nothing_none() -> None:
    batch = coview.Batch(pixels(8), torch.arange(8))
    always = {"jitter": (0.4, 0.4, 0.2, 0.1), "jitter_p": 1.0, "grey_p": 1.0, "blur_p": 1.0}
    _, notes = made(batch, flip_p=1.0, solarize_p=1.0, **always)
    words = said(notes, 1, 5).words
    names = ["flip", "brightness", "contrast", "saturation", "hue", "grey", "blur", "solarize"]
    assert [word.split()[0] for word in (words[0], *sorted(words[1:5]), *words[5:])] == [
        *(names[0], *sorted(names[1:5])),
        *names[5:],
    ]
    assert words[6].endswith(" px") and words[1:5] != said(notes, 0, 5).words[1:5]
    _, notes = made(batch, flip_p=0.0)
    assert said(notes, 0, 0).words == ()


def test_nothing_is_noted_unless_someone_looks() -> None:
    batch = coview.Batch(pixels(2), torch.arange(2))
    crops, notes = made(batch)
    assert len(notes) == 1 and notes[0].views == (0, 1) and not noted.wanted()
    noted.keep(notes[0])
    again, more = made(batch)
    assert len(more) == 1 and all(map(torch.equal, crops, again))


def test_what_another_backend_does_is_not_known() -> None:
    _, notes = made(coview.Batch(pixels(2), torch.arange(2)), backend="torchvision")
    assert notes == [] and noted.fired(notes, 0, 0) is None
