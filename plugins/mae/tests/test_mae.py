"""Masks, the transformer on visible patches, the decoder and the targets, in float64."""

from __future__ import annotations

import math
from typing import Any

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import coview
from coview import Batch, Layout, Plan, Step, Views, hookimpl
from coview.method.module import Method
from coview.method.relay import BuiltComponent
from coview.nn.backbones import BackboneSpec
from coview.recipes.tables import BackboneSettings
from coview.records import Encoded
from coview_mae.mask import RandomMask
from coview_mae.pixels import patchified
from coview_mae.transformer import positions, vit_tiny

SIDE, PATCH, COUNT, MASKED = 16, 4, 16, 12
LAYOUT = Layout(((SIDE, SIDE),), (3,), (0,), (0,), ((0, 0),))


def spec(name: str = "vit", patch: int = PATCH) -> BackboneSpec:
    return BackboneSpec(name, vit_tiny, BackboneSettings(patch=patch))


def plan(layout: Layout = LAYOUT, **chosen: Any) -> Plan:
    return Plan(batch_size=4, backbone=spec(), layout=layout, **chosen)


def encoder(layout: Layout = LAYOUT, **chosen: Any) -> Any:
    torch.manual_seed(0)
    chosen = {"width": 8, "blocks": 2, "heads": 2, **chosen}
    return coview.component("encoders", "masked-autoencoder", plan=plan(layout), **chosen).double()


def crop(rows: int = 3, channels: int = 3) -> Tensor:
    make = torch.Generator().manual_seed(1)
    return torch.randn(rows, channels, SIDE, SIDE, generator=make, dtype=torch.float64)


def hidden(crops: Tensor, seed: int = 0) -> Views:
    """Views with a mask that is drawn here."""
    make = torch.Generator().manual_seed(seed)
    order = torch.rand(len(crops), COUNT, generator=make).argsort(dim=1)
    about = {
        "visible": {0: order[:, : COUNT - MASKED].sort().values},
        "masked": {0: order[:, COUNT - MASKED :].sort().values},
    }
    return Views((crops,), (0,), (0,), ((0, 0),), about)


def batch(rows: int = 3) -> Batch:
    return Batch(torch.zeros(rows, 3, SIDE, SIDE, dtype=torch.uint8), torch.arange(rows) + 7)


# --- masks ------------------------------------------------------------------------------------


class OneView(nn.Module):
    """Views that are zeros."""

    layout = LAYOUT

    @hookimpl
    def generate_views(self, batch: Batch) -> Views:
        return Views((batch.images.float(),), (0,), (0,), ((0, 0),), {"boxes": {}})


def drawn(mask: RandomMask, rows: int, step: Step) -> Views:
    wrapped = mask.generate_views(batch(rows), step)
    next(wrapped)
    with pytest.raises(StopIteration) as done:
        wrapped.send(OneView().generate_views(batch(rows)))
    made: Views = done.value.value
    return made


@settings(max_examples=30, deadline=None)
@given(st.floats(0.07, 0.93), st.integers(1, 9), st.integers(0, 99))
def test_as_many_patches_of_every_image_are_hidden(ratio: float, rows: int, seed: int) -> None:
    mask = RandomMask(RandomMask.Settings(ratio=ratio), plan(encoder=encoder()))
    views = drawn(mask, rows, Step(seed=seed))
    visible, masked = views.about["visible"][0], views.about["masked"][0]
    assert visible.shape == (rows, int(COUNT * (1 - ratio))) and views.about["boxes"] == {}
    for seen, unseen in zip(visible.tolist(), masked.tolist(), strict=True):
        assert seen == sorted(seen) and unseen == sorted(unseen)
        assert sorted(seen + unseen) == list(range(COUNT))


def test_masks_differ_by_image_and_step_and_are_even() -> None:
    mask = RandomMask(RandomMask.Settings(), plan(encoder=encoder()))
    times = torch.zeros(COUNT)
    for number in range(40):
        views = drawn(mask, 50, Step(number=number))
        masked = views.about["masked"][0]
        assert len({tuple(row) for row in masked.tolist()}) > 30
        assert torch.equal(masked, drawn(mask, 50, Step(number=number)).about["masked"][0])
        times += masked.flatten().bincount(minlength=COUNT)
    # Each patch is hidden in 3/4 of 2000 masks, with a deviation of 19.4.
    assert (times - 1500).abs().max() < 5 * math.sqrt(2000 * 0.75 * 0.25)


def test_what_cannot_be_hidden() -> None:
    with pytest.raises(coview.RequestError, match="leaves 0 of the 16 patches of 4 pixels"):
        RandomMask(RandomMask.Settings(ratio=0.99), plan(encoder=encoder()))
    with pytest.raises(coview.RequestError, match="this backbone has none"):
        RandomMask(RandomMask.Settings(), plan(encoder=nn.Linear(1, 1)))


# --- the encoder ------------------------------------------------------------------------------


def test_hidden_patches_are_not_seen() -> None:
    """Whatever the hidden pixels are, features and predictions stay; visible ones matter."""
    online, crops = encoder().eval(), crop()
    views = hidden(crops)
    before = online.encode(views, batch())
    for which, changes in (("masked", False), ("visible", True)):
        changed = crops.clone()
        cut = changed.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH)
        for image, numbers in enumerate(views.about[which][0].tolist()):
            for number in numbers:
                cut[image, :, number // 4, number % 4] += 3.0
        after = online.encode(attrs.evolve(views, crops=(changed,)), batch())
        assert torch.equal(before.queries[0], after.queries[0]) is not changes
        assert torch.equal(before.features[0], after.features[0]) is not changes


def test_predictions_are_those_of_the_formula() -> None:
    """By hand: positions, visible tokens, blocks, mask tokens at all other places in order."""
    online, views = encoder().eval(), hidden(crop(2))
    trunk, decoder = online.trunk, online.projector
    made = online.encode(views, batch(2))
    assert made.queries[0].shape == (2 * MASKED, PATCH * PATCH * 3) and online.dim == 48
    for image in range(2):
        tokens = trunk.patch_embed.proj(crop(2)[image : image + 1]).flatten(2)[0].T
        tokens = tokens + trunk.pos_embed[0, 1:]
        seen = views.about["visible"][0][image].tolist()
        x = torch.cat([trunk.cls_token[0], tokens[seen]]).unsqueeze(0)
        for block in trunk.blocks:
            x = block(x)
        x = trunk.norm(x)
        assert torch.allclose(made.features[0][image], x[0, 0])
        x = decoder.embed(x)[0]
        places = [decoder.mask_token[0, 0]] * COUNT
        for row, place in zip(x[1:], seen, strict=True):
            places[place] = row
        y = torch.stack(places) + decoder.positions[0]
        y = torch.cat([x[:1], y]).unsqueeze(0)
        for block in decoder.blocks:
            y = block(y)
        predicted = decoder.predict(decoder.norm(y))[0, 1:]
        unseen = views.about["masked"][0][image].tolist()
        rows = slice(image * MASKED, (image + 1) * MASKED)
        assert torch.allclose(made.queries[0][rows], predicted[unseen], atol=1e-10)
        assert made.identities[0][rows].tolist() == [(7 + image) * COUNT + p for p in unseen]


def test_the_exported_network_sees_all_patches() -> None:
    online = encoder().eval()
    assert online.backbone() is online.trunk
    everything = hidden(crop())
    about = {
        "visible": {0: torch.arange(COUNT).expand(3, -1)},
        "masked": {0: torch.zeros(3, 1).long()},
    }
    features, _ = online.project(attrs.evolve(everything, about=about), (0,))
    assert torch.allclose(features[0], online.trunk(crop()), atol=1e-10)


def test_positions_and_first_weights() -> None:
    made = positions(2, 3, 8)[0].double()
    for row in range(2):
        for column in range(3):
            waves = [10000.0 ** (-j / 2) for j in range(2)]
            expected = [
                f(w * x) for f in (math.sin, math.cos) for x in (row, column) for w in waves
            ]
            assert made[row * 3 + column].tolist() == pytest.approx(expected, abs=1e-6)
    torch.manual_seed(0)
    network: Any = vit_tiny(3, 32, BackboneSettings())
    assert network.patch_embed.patch_size == (4, 4) and not network.pos_embed.requires_grad
    assert network.pos_embed[0, 0].abs().max() == 0
    for weight, inputs, outputs in (
        (network.blocks[0].attn.qkv.weight, 192, 576),
        (network.blocks[3].mlp.fc1.weight, 192, 768),
        (network.patch_embed.proj.weight, 48, 192),
    ):
        bound = math.sqrt(6 / (inputs + outputs))
        assert 0.99 * bound < weight.abs().max().item() <= bound
    assert network.cls_token.std().item() == pytest.approx(0.02, rel=0.2)
    assert network.blocks[0].attn.qkv.bias.abs().max() == 0


def test_what_the_encoder_refuses() -> None:
    with pytest.raises(coview.RequestError, match=r"must be a multiple of 4 and of encoder.heads"):
        encoder(width=10, heads=2)
    other = Layout(((16, 16), (8, 8)), (3, 3), (0, 1), (0,), ((0, 0),))
    with pytest.raises(coview.RequestError, match="views of one size"):
        encoder(other)
    with pytest.raises(coview.RequestError, match="--use wrap=random-mask"):
        encoder().encode(attrs.evolve(hidden(crop()), about={}), batch())
    resnet = coview.nn.backbones.resnet10_quarter  # type: ignore[attr-defined]
    wrong = attrs.evolve(plan(), backbone=BackboneSpec("r", resnet, BackboneSettings()))
    with pytest.raises(coview.RequestError, match="only a vision transformer allows, not ResNet"):
        coview.component("encoders", "masked-autoencoder", plan=wrong)


# --- targets and loss -------------------------------------------------------------------------


def pixels(**chosen: Any) -> Any:
    about = {"dim": 48, "slots": {0: "patch"}}
    return coview.component("targets", "patch-pixels", plan=plan(**about), **chosen)


@pytest.mark.parametrize("normalise", [True, False])
def test_keys_are_the_pixels_of_the_hidden_patches(normalise: bool) -> None:
    views = hidden(crop())
    encoded = encoder().encode(views, batch())
    made = pixels(normalise=normalise).encode_targets(views, encoded)
    assert made.identities is encoded.identities and not made.keys[0].requires_grad
    row = 0
    for image in range(3):
        for place in views.about["masked"][0][image].tolist():
            top, left = place // 4 * PATCH, place % 4 * PATCH
            expected = [
                crop()[image, channel, top + y, left + x].item()
                for y in range(PATCH)
                for x in range(PATCH)
                for channel in range(3)
            ]
            if normalise:
                mean = sum(expected) / 48
                variance = sum((value - mean) ** 2 for value in expected) / 47
                expected = [(value - mean) / math.sqrt(variance + 1e-6) for value in expected]
            assert made.keys[0][row].tolist() == pytest.approx(expected, abs=1e-10)
            row += 1
    assert row == len(made.keys[0])


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 10), st.floats(-5, 5))
def test_brightness_and_contrast_do_not_change_standardised_keys(by: float, plus: float) -> None:
    views = hidden(crop())
    encoded = Encoded({0: torch.zeros(1)}, {}, {}, ((0, 0),), {})
    before = pixels().encode_targets(views, encoded).keys[0]
    other = attrs.evolve(views, crops=(crop() * by + plus,))
    after = pixels().encode_targets(other, encoded).keys[0]
    assert torch.allclose(before, after, atol=1e-3)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3))
def test_patches_are_cut_in_reading_order(side: int, channels: int, high: int, wide: int) -> None:
    images = torch.arange(2.0 * channels * high * wide * side**2)
    images = images.view(2, channels, high * side, wide * side)
    made = patchified(images, side)
    assert made.shape == (2, high * wide, side * side * channels)
    for row in range(high):
        for column in range(wide):
            part = images[:, :, row * side : (row + 1) * side, column * side : (column + 1) * side]
            assert torch.equal(made[:, row * wide + column], part.permute(0, 2, 3, 1).flatten(1))


def test_the_parts_together() -> None:
    """One step: the loss is the mean over hidden patches alone; all but positions learns."""
    torch.manual_seed(0)
    online = coview.component(
        "encoders", "masked-autoencoder", plan=plan(), width=8, blocks=1, heads=2
    )
    whole = plan(encoder=online, dim=48, slots=online.slots)
    parts = {
        "views": OneView(),
        "encoder": online,
        "target": pixels(),
        "negatives": coview.component("negatives", "none"),
        "loss": coview.component("losses", "squared-error", reduction="mean"),
        "wrap": RandomMask(RandomMask.Settings(), whole),
    }
    method = Method([BuiltComponent(k, m, (k,), k, "coview-mae") for k, m in parts.items()])
    images = torch.randint(256, (3, 3, SIDE, SIDE), dtype=torch.uint8)
    loss = method(Batch(images, torch.arange(3)), Step())
    loss.backward()
    *_, encoded, targets = method._records[0]
    expected = (encoded.queries[0] - targets.keys[0]).square().mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    without = {n for n, p in online.named_parameters() if p.grad is None}
    assert without == {"trunk.pos_embed"}


def test_pixels_need_patches() -> None:
    with pytest.raises(coview.RequestError, match="needs an encoder that predicts patches"):
        coview.component("targets", "patch-pixels", plan=plan(dim=48))
    with pytest.raises(coview.RequestError, match="needs an encoder that predicts patches"):
        coview.component("targets", "patch-pixels", plan=plan(dim=50, slots={0: "patch"}))
