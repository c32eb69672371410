"""Masks, the encoder and the losses against references in plain Python, in float64."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import attrs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import coview
from coview import Batch, Layout, Plan, Step, Views
from coview.nn.backbones import BackboneSpec, find_backbone
from coview.recipes.tables import BackboneSettings
from coview.records import Encoded, Targets
from coview_ibot.mask import BlockMask, blocks

# Two large views, query and key, and a small one that is only a query.
LAYOUT = Layout(
    ((16, 16), (16, 16), (8, 8)), (3,) * 3, (0, 1, 2), (0, 1), ((0, 1), (1, 0), (2, 0), (2, 1))
)
ASPECT = (0.3, 1 / 0.3)


def vit(channels: int, size: int, chosen: BackboneSettings) -> nn.Module:
    return VisionTransformer(
        img_size=size, patch_size=4, in_chans=channels, num_classes=0, embed_dim=12, depth=2,
        num_heads=2, dynamic_img_size=True,
    )  # fmt: skip


def plan(**chosen: Any) -> Plan:
    chosen = {"layout": LAYOUT, "backbone": BackboneSpec("vit", vit), **chosen}
    return Plan(batch_size=3, steps_per_epoch=4, **chosen)


def encoder(**chosen: Any) -> Any:
    torch.manual_seed(0)
    chosen = {"dim": 7, "hidden": 8, "bottleneck": 5, "layers": 2, **chosen}
    made: Any = coview.component("encoders", "masked-tokens", plan=plan(), **chosen).double()
    with torch.no_grad():
        made.mask_token.normal_()
    return made


def some_views(rows: int = 3) -> Views:
    make = torch.Generator().manual_seed(1)
    crops = [
        torch.randn(rows, 3, *size, generator=make, dtype=torch.float64) for size in LAYOUT.sizes
    ]
    masks = {view: torch.rand(rows, 4, 4, generator=make) < 0.4 for view in (0, 1)}
    masks[0][1] = False  # an image without hidden patches
    return Views(tuple(crops), LAYOUT.queries, LAYOUT.keys, LAYOUT.pairs, {"mask": masks})


def batch(rows: int = 3) -> Batch:
    return Batch(torch.zeros(rows, 3, 16, 16, dtype=torch.uint8), torch.arange(rows) + 7)


# --- masks ------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 14), st.integers(2, 14), st.floats(0, 1), st.integers(0, 10_000))
def test_blocks_hide_no_more_than_asked(rows: int, columns: int, share: float, seed: int) -> None:
    most = share * rows * columns
    mask = blocks(rows, columns, most, ASPECT, Random(seed))
    assert len(mask) == rows and {len(row) for row in mask} == {columns}
    assert sum(map(sum, mask)) <= most
    assert mask == blocks(rows, columns, most, ASPECT, Random(seed))
    assert sum(map(sum, blocks(rows, columns, 0.0, ASPECT, Random(seed)))) == 0


def test_blocks_hide_what_is_asked_in_blocks() -> None:
    counts, alone, whole = [], 0, 0
    for seed in range(200):
        mask = blocks(14, 14, 0.3 * 196, ASPECT, Random(seed))
        counts.append(sum(map(sum, mask)))
        for r in range(14):
            for c in range(14):
                near = [(r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)]
                hit = any(0 <= a < 14 and 0 <= b < 14 and mask[a][b] for a, b in near)
                whole += mask[r][c]
                alone += mask[r][c] and not hit
    # At random, one of six hidden patches would have no hidden neighbour.
    assert 0.25 < sum(counts) / 200 / 196 <= 0.3 and alone / whole < 0.02


def masks_of(mask: BlockMask, rows: int, step: Step) -> dict[int, Tensor]:
    wrapped = mask.generate_views(batch(rows), step)
    next(wrapped)
    with pytest.raises(StopIteration) as done:
        wrapped.send(attrs.evolve(some_views(rows), about={"boxes": {}}))
    about: Any = done.value.value.about
    assert set(about) == {"boxes", "mask"}
    found: dict[int, Tensor] = about["mask"]
    return found


def made_mask(**chosen: Any) -> BlockMask:
    return BlockMask(BlockMask.Settings(**chosen), plan(encoder=encoder()))


def test_large_views_are_masked_by_image_and_step() -> None:
    mask = made_mask()
    first, again = masks_of(mask, 60, Step()), masks_of(mask, 60, Step())
    other = masks_of(mask, 60, Step(number=1))
    assert list(first) == [0, 1] and first[0].shape == (60, 4, 4) and first[0].dtype == torch.bool
    assert torch.equal(first[0], again[0]) and not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], other[0])
    # Half of the images draw the ratio 0; the others hide 10 to 50 % of the patches.
    shares = torch.cat([first[0], first[1]]).flatten(1).float().mean(dim=1)
    assert 35 < (shares == 0).sum() < 85 and shares.max() <= 0.5 and shares.max() > 0.3


def test_masks_may_begin_later() -> None:
    mask = made_mask(from_epoch=2.0, ratio=(0.3,), spread=(0.0,))
    assert not masks_of(mask, 5, Step(number=7, steps_per_epoch=4))[0].any()
    assert masks_of(mask, 5, Step(number=8, steps_per_epoch=4))[0].any(dim=2).any(dim=1).all()


def test_what_cannot_be_masked() -> None:
    with pytest.raises(coview.RequestError, match="a spread for each ratio, not 1 for 2"):
        made_mask(spread=(0.0,))
    with pytest.raises(coview.RequestError, match=r"shares from -0.1 to 0.3"):
        made_mask(ratio=(0.1,), spread=(0.2,))
    with pytest.raises(coview.RequestError, match="this backbone has none"):
        BlockMask(BlockMask.Settings(), plan(encoder=nn.Linear(1, 1)))


# --- the encoder ------------------------------------------------------------------------------


def by_hand(online: Any, crop: Tensor, hidden: list[bool] | None) -> Tensor:
    """One image's normalised tokens: patches, hidden ones replaced, positions, blocks."""
    trunk = online.trunk
    patches = trunk.patch_embed.proj(crop.unsqueeze(0)).flatten(2)[0].T
    if hidden is not None:
        rows = [online.mask_token if h else p for h, p in zip(hidden, patches, strict=True)]
        patches = torch.stack(rows)
    tokens = torch.cat([trunk.cls_token[0], patches]) + trunk.pos_embed[0]
    made: Tensor = trunk.norm(trunk.blocks(tokens.unsqueeze(0)))[0]
    return made


def test_queries_of_images_and_of_hidden_patches() -> None:
    online, views = encoder(), some_views()
    made = online.encode(views, batch())
    assert {s: tuple(q.shape) for s, q in made.queries.items()} == {
        0: (3, 7), 1: (3, 7), 2: (3, 7), 3: (48, 7), 4: (48, 7),
    }  # fmt: skip
    assert made.pairs == (*LAYOUT.pairs, (3, 3), (4, 4))
    assert online.slots == {0: "image", 1: "image", 3: "token", 4: "token"}
    for view in (0, 1):
        for image in range(3):
            hidden = views.about["mask"][view][image].flatten().tolist()
            tokens = by_hand(online, views.crops[view][image], hidden)
            outputs = online.projector(tokens)
            assert torch.allclose(made.features[view][image], tokens[0])
            assert torch.allclose(made.queries[view][image], outputs[0], atol=1e-10)
            rows = slice(image * 16, (image + 1) * 16)
            assert torch.allclose(made.queries[3 + view][rows], outputs[1:], atol=1e-10)
            expected = [(7 + image) * 16 + place for place in range(16)]
            assert made.identities[3 + view][rows].tolist() == expected
    assert made.identities[2].tolist() == [7, 8, 9]


def test_keys_see_everything() -> None:
    online, views = encoder(), some_views()
    target = coview.component("targets", "momentum", plan=plan(encoder=online, slots=online.slots))
    keys = target.encode_targets(views, online.encode(views, batch()), batch(), Step())
    assert sorted(keys.keys) == [0, 1, 3, 4] and not keys.keys[3].requires_grad
    for view in (0, 1):
        for image in range(3):
            outputs = online.projector(by_hand(online, views.crops[view][image], None))
            assert torch.allclose(keys.keys[view][image], outputs[0], atol=1e-10)
            rows = keys.keys[3 + view][image * 16 : (image + 1) * 16]
            assert torch.allclose(rows, outputs[1:], atol=1e-10)


def test_hidden_pixels_are_not_seen() -> None:
    online, views = encoder(), some_views()
    before = online.encode(views, batch())
    changed = views.crops[0].clone()
    cut = changed.unfold(2, 4, 4).unfold(3, 4, 4)
    for image, row, column in views.about["mask"][0].nonzero().tolist():
        cut[image, :, row, column] += 2.0
    after = online.encode(attrs.evolve(views, crops=(changed, *views.crops[1:])), batch())
    assert torch.equal(before.queries[0], after.queries[0])
    assert torch.equal(before.queries[3], after.queries[3])


def test_gradients_are_clipped_and_the_last_layer_waits() -> None:
    online = encoder(clip=0.5)
    online.encode(some_views(), batch()).queries[0].sum().mul(100).backward()
    online.gradients_ready(Step(number=3, steps_per_epoch=4))
    norms = [p.grad.norm().item() for p in online.parameters() if p.grad is not None]
    assert max(norms) == pytest.approx(0.5, abs=1e-4)
    assert online.projector.last.weight.grad is None
    online.encode(some_views(), batch()).queries[0].sum().backward()
    online.gradients_ready(Step(number=4, steps_per_epoch=4))
    assert online.projector.last.weight.grad is not None


def test_what_the_encoder_refuses() -> None:
    with pytest.raises(coview.RequestError, match="--use wrap=block-mask"):
        encoder().encode(attrs.evolve(some_views(), about={}), batch())
    resnet, _ = find_backbone("resnet10-quarter")
    wrong = plan(backbone=BackboneSpec("r", resnet, BackboneSettings()))
    with pytest.raises(coview.RequestError, match="with a class token, not ResNet"):
        coview.component("encoders", "masked-tokens", plan=wrong)


# --- the losses -------------------------------------------------------------------------------


def softmax(row: list[float], temperature: float) -> list[float]:
    powers = [math.exp(value / temperature) for value in row]
    return [power / sum(powers) for power in powers]


def crossed(query: list[float], key: list[float], centre: list[float]) -> float:
    given = softmax([k - c for k, c in zip(key, centre, strict=True)], 0.07)
    return -sum(g * math.log(s) for g, s in zip(given, softmax(query, 0.1), strict=True))


def record(seed: int) -> tuple[Views, Encoded, Targets, Plan]:
    make = torch.Generator().manual_seed(seed)
    sizes = {0: 3, 1: 3, 2: 3, 3: 48, 4: 48}
    q, k = (
        {s: torch.randn(n, 5, generator=make, dtype=torch.float64) / 3 for s, n in sizes.items()}
        for _ in range(2)
    )
    q = {slot: rows.requires_grad_() for slot, rows in q.items()}
    whose = {slot: torch.arange(n) for slot, n in sizes.items()}
    encoded = Encoded(q, q, whose, (*LAYOUT.pairs, (3, 3), (4, 4)), {})
    del k[2]
    slots = {0: "image", 1: "image", 3: "token", 4: "token"}
    return some_views(), encoded, Targets(k, whose), plan(dim=5, slots=slots)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_the_loss_of_hidden_patches(seed: int) -> None:
    views, encoded, targets, whole = record(seed)
    loss: Any = coview.component("losses", "token-distillation", plan=whole).double()
    loss.centre.copy_(torch.linspace(-0.2, 0.2, 5))
    centre = loss.centre.tolist()
    found = loss.compute_loss(views, encoded, targets, Step())
    terms = []
    for view in (0, 1):
        for image in range(3):
            hidden = views.about["mask"][view][image].flatten().tolist()
            lost = [
                crossed(
                    encoded.queries[3 + view][image * 16 + place].tolist(),
                    targets.keys[3 + view][image * 16 + place].tolist(),
                    centre,
                )
                for place in range(16)
                if hidden[place]
            ]
            terms.append(sum(lost) / max(len(lost), 1))
    assert found.item() == pytest.approx(sum(terms) / 6, abs=1e-10)
    found.backward()
    for view in (0, 1):
        reached = encoded.queries[3 + view].grad.abs().sum(dim=1) > 0  # type: ignore[union-attr]
        assert torch.equal(reached, views.about["mask"][view].flatten())
        assert encoded.queries[view].grad is None


def test_the_centres_of_images_and_of_patches() -> None:
    _, encoded, targets, whole = record(0)
    tokens: Any = coview.component("losses", "token-distillation", plan=whole).double()
    images: Any = coview.component(
        "losses", "self-distillation", plan=whole, teacher_temperature=0.07
    ).double()
    for made, slots in ((tokens, (3, 4)), (images, (0, 1))):
        made.update_target(targets)
        mean = torch.cat([targets.keys[slot] for slot in slots]).mean(dim=0)
        assert torch.allclose(made.centre, 0.1 * mean, atol=1e-12)
    # DINO's loss is that of images alone.
    images.centre.zero_()
    found = images.compute_loss(encoded, targets, Step())
    terms = [
        crossed(q, k, [0.0] * 5)
        for query, key in LAYOUT.pairs
        for q, k in zip(encoded.queries[query].tolist(), targets.keys[key].tolist(), strict=True)
    ]
    assert found.item() == pytest.approx(sum(terms) / len(terms), abs=1e-10)


def test_token_distillation_needs_tokens() -> None:
    with pytest.raises(coview.RequestError, match="needs an encoder that compares tokens"):
        coview.component("losses", "token-distillation", plan=plan(dim=5))
