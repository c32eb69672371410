from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import coview
from coview import Batch, Encoded, Layout, Plan, Step, Views
from coview.nn.backbones import BackboneSettings, BackboneSpec, resnet10_quarter
from coview_cmc.encoder import JoinedBackbones, PerViewEncoder

TINY = BackboneSpec("resnet10-quarter", resnet10_quarter, BackboneSettings())
BOTH = ((0, 1), (1, 0))


def layout(*channels: int, pairs: Any = BOTH) -> Layout:
    everyone = tuple(range(len(channels)))
    return Layout(((16, 16),) * len(channels), channels, everyone, everyone, pairs)


def encoder(*channels: int, **settings: object) -> PerViewEncoder:
    torch.manual_seed(0)
    plan = Plan(layout=layout(*channels), backbone=TINY, batch_size=4)
    return PerViewEncoder(PerViewEncoder.Settings(**settings), plan)


def random_views(*channels: int, rows: int = 4) -> Views:
    generator = torch.Generator().manual_seed(1)
    crops = tuple(torch.rand(rows, c, 16, 16, generator=generator) for c in channels)
    return Views(crops, (0, 1), (0, 1), BOTH)


def encode(network: PerViewEncoder, views: Views) -> Encoded:
    rows = len(views.crops[0])
    return network.encode(views, Batch(torch.zeros(rows, 3, 16, 16), torch.arange(rows)))


@pytest.mark.parametrize("view", [0, 1])
def test_each_view_trains_its_own_network_only(view: int) -> None:
    network = encoder(1, 2)
    encode(network, random_views(1, 2)).queries[view].square().sum().backward()
    own, other = network.encoders[view], network.encoders[1 - view]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in own.parameters())
    assert all(p.grad is None for p in other.parameters())


def test_networks_share_nothing() -> None:
    network = encoder(2, 2)
    first, second = (list(e.parameters()) for e in network.encoders)
    assert not {id(p) for p in first} & {id(p) for p in second}
    assert not torch.equal(first[0], second[0])


def test_records() -> None:
    encoded = encode(encoder(1, 2, dim=24), random_views(1, 2))
    assert encoded.queries[1].shape == (4, 24) and encoded.features[0].shape == (4, 128)
    assert encoded.pairs == BOTH and encoded.identities[1].tolist() == [0, 1, 2, 3]


def test_a_deeper_head() -> None:
    network = encoder(1, 2, layers=2, hidden=32, dim=8)
    widths = [
        m.out_features
        for m in network.encoders[0].projector.modules()
        if hasattr(m, "bias") and isinstance(m, nn.Linear)
    ]
    assert widths == [32, 8]


def test_the_exported_backbone_joins_all_features() -> None:
    network = encoder(1, 2).eval()
    views = random_views(1, 2)
    joined = network.backbone()
    assert isinstance(joined, JoinedBackbones) and joined.num_features == 256
    expected = torch.cat(
        [e.trunk(c) for e, c in zip(network.encoders, views.crops, strict=True)], 1
    )
    assert torch.equal(joined(*views.crops), expected)


def test_a_copy_for_a_target_is_a_copy() -> None:
    network = encoder(1, 2)
    twin = network.without_predictor()
    for mine, theirs in zip(network.parameters(), twin.parameters(), strict=True):
        assert torch.equal(mine, theirs) and mine is not theirs


# The worked example of two views: f_L, f_ab, and the banks' rows.
F_L, F_AB = [1.0, 0.0], [0.6, 0.8]
BANK_L = [[0.8, 0.6], [0.0, 1.0], [-1.0, 0.0]]
BANK_AB = [[0.6, 0.8], [0.0, -1.0], [-0.8, 0.6]]


def example(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Encoded, Batch, Plan]:
    plan = Plan(dataset_size=6, dim=2, layout=layout(1, 2))
    bank: Any = coview.component("targets", "memory-bank", plan=plan, draws=2, per_view=True)
    bank.double()
    bank.rows[0, :3], bank.rows[1, :3] = torch.tensor(BANK_L), torch.tensor(BANK_AB)
    monkeypatch.setattr(bank, "_draw", lambda queries, step: torch.tensor([[1, 2]]))
    z = {v: torch.tensor([f], dtype=torch.float64) for v, f in enumerate((F_L, F_AB))}
    index = torch.zeros(1, dtype=torch.int64)
    return bank, Encoded(z, z, dict.fromkeys(z, index), BOTH, {}), Batch(index, index), plan


def loss_of(name: str, parts: tuple[Any, Encoded, Batch, Plan], **settings: Any) -> float:
    bank, encoded, batch, plan = parts
    views = Views((), (0, 1), (0, 1), BOTH)
    targets = bank.encode_targets(views, batch)
    negatives = (bank.draw_negatives(targets, batch, Step()),)
    loss: Any = coview.component("losses", name, plan=plan, reduction="sum", **settings)
    return loss.compute_loss(encoded, targets, negatives, Step()).item()


@pytest.mark.parametrize("temperature, total", [(0.5, 0.880110), (0.1, 0.186377), (0.07, 0.097045)])
def test_the_softmax_form(
    monkeypatch: pytest.MonkeyPatch, temperature: float, total: float
) -> None:
    """T3.1: even the positive is the other view's row, as it was."""
    found = loss_of("non-parametric-softmax", example(monkeypatch), temperature=temperature)
    assert found == pytest.approx(total, abs=2e-6)


def test_nce(monkeypatch: pytest.MonkeyPatch) -> None:
    """T3.2, with a constant Z for each direction."""
    found = loss_of("nce", example(monkeypatch), temperature=0.5)
    assert found == pytest.approx(2.293000, abs=2e-6)


def test_banks_take_in_their_own_view(monkeypatch: pytest.MonkeyPatch) -> None:
    """T3.3."""
    bank, encoded, batch, _ = example(monkeypatch)
    before = bank.rows.clone()
    bank.update_target(encoded, batch)
    assert bank.rows[0, 0].tolist() == pytest.approx([0.948683, 0.316228], abs=1e-6)
    assert bank.rows[1, 0].tolist() == pytest.approx([0.6, 0.8])
    assert torch.equal(bank.rows[:, 1:], before[:, 1:])


def test_first_losses() -> None:
    """T3.5, equal logits: 2 log (K + 1)."""
    plan = Plan(dataset_size=9000, dim=4, layout=layout(1, 2))
    bank: Any = coview.component("targets", "memory-bank", plan=plan, draws=4096, per_view=True)
    bank.rows.fill_(0.5)
    z = dict.fromkeys((0, 1), torch.full((2, 4), 0.5))
    index = torch.tensor([0, 1])
    encoded = Encoded(z, z, dict.fromkeys(z, index), BOTH, {})
    found = loss_of("non-parametric-softmax", (bank, encoded, Batch(index, index), plan))
    assert found == pytest.approx(16.636021, abs=1e-4)
    assert found == pytest.approx(2 * math.log(4097), abs=1e-4)


def three_views(**settings: object) -> Any:
    recipe = coview.recipe("cmc")
    from coview.method.module import build_method
    from coview.recipes.configure import Changes, configure

    changed = {"views.space": "raw", "target.draws": 5, "backbone.stem": "7x7", **settings}
    changes = Changes(backbone="resnet10-quarter", set=changed, preset="none")
    plan = Plan(
        dataset_size=20, channels=3, image_size=16, batch_size=4, mean=(0.5,) * 3, std=(0.2,) * 3
    )
    return build_method(configure(recipe, None, changes, "test"), plan)


@pytest.mark.parametrize("pairing, directions", [("full", 6), ("core", 4)])
def test_three_views_have_three_networks_and_banks(pairing: str, directions: int) -> None:
    torch.manual_seed(0)
    method = three_views(**{"views.pairing": pairing})
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 16, 16), dtype=torch.uint8, generator=generator)
    batch, step = Batch(images, torch.tensor([3, 0, 7, 9])), Step()
    before = method.components["target"].rows.clone()
    method(batch, step).backward()
    assert method.components["loss"].normalizer.shape == (directions,)
    assert method.components["loss"].normalizer.gt(0).all()
    assert len(method.encoder.encoders) == 3 and before.shape == (3, 20, 128)
    method.update_target(step)
    moved = (method.components["target"].rows != before).any(-1)
    assert [row.nonzero().flatten().tolist() for row in moved] == [[0, 3, 7, 9]] * 3


def colour_folder(path: Path) -> Path:
    random = np.random.RandomState(0)
    for number in range(40):
        folder = path / "ab"[number % 2]
        folder.mkdir(exist_ok=True)
        pixels = random.randint(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return path


def test_a_run_is_exported_with_all_its_networks(tmp_path: Path) -> None:
    run = coview.train(
        "cmc",
        data=str(colour_folder(tmp_path)),
        out=tmp_path / "run",
        backbone="resnet10-quarter",
        batch_size=8,
        epochs=1,
        progress=False,
    )
    loaded = coview.load_backbone(run.path)
    images = torch.rand(4, 3, 16, 16)
    method = run.method.eval()
    crops: tuple[Tensor, ...] = method.components["views"].evaluation_views(images).crops
    with torch.no_grad():
        expected = [e.trunk(c) for e, c in zip(method.encoder.encoders, crops, strict=True)]
        torch.testing.assert_close(loaded(images), torch.cat(expected, dim=1))
    assert loaded.width == 256
