from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

from coview import Batch, Encoded, Layout, Plan, RequestError, Step, Targets, Views
from coview.nn.backbones import BackboneSpec
from coview_cpc.context import CONTEXTS
from coview_cpc.encoder import EVERY_PATCH, AutoregressiveEncoder, MeanOverPatches
from coview_cpc.every_patch import EveryPatch
from coview_cpc.info_nce import InfoNCE


class Corner(nn.Module):
    """Features are a patch's first four pixels: what a patch shows can be read off."""

    num_features = 4

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :4] * self.scale


def layout(rows: int, columns: int) -> Layout:
    count = rows * columns
    everyone = tuple(range(count))
    return Layout(((2, 2),) * count, (1,) * count, everyone, everyone, ((0, 1),), (rows, columns))


def encoder(rows: int = 7, columns: int = 7, **settings: object) -> AutoregressiveEncoder:
    spec = BackboneSpec("corner", lambda channels, size, given: Corner())
    plan = Plan(layout=layout(rows, columns), backbone=spec, batch_size=4)
    return AutoregressiveEncoder(AutoregressiveEncoder.Settings(**settings), plan)


def numbered_views(images: int, pieces: int) -> Views:
    """Every pixel of patch p of image b is 100 b + p."""
    crops = tuple(
        torch.stack([torch.full((1, 2, 2), 100.0 * b + p) for b in range(images)])
        for p in range(pieces)
    )
    return Views(crops, tuple(range(pieces)), tuple(range(pieces)), ())


def random_views(images: int, pieces: int, requires_grad: bool = False) -> Views:
    generator = torch.Generator().manual_seed(1)
    crops = tuple(
        torch.rand(images, 1, 2, 2, generator=generator).requires_grad_(requires_grad)
        for _ in range(pieces)
    )
    return Views(crops, tuple(range(pieces)), tuple(range(pieces)), ())


def encode(network: AutoregressiveEncoder, views: Views) -> Encoded:
    count = len(views.crops[0])
    return network.encode(views, Batch(torch.zeros(count, 1, 4, 4), torch.arange(count)))


def randomized(network: AutoregressiveEncoder) -> AutoregressiveEncoder:
    torch.manual_seed(0)
    for predictor in network.predictors:
        nn.init.normal_(predictor.weight)
    return network


@pytest.mark.parametrize(
    "first, last, counts",
    [(1, 5, [42, 35, 28, 21, 14]), (2, 6, [35, 28, 21, 14, 7])],
)
def test_counts_of_targets_an_image(first: int, last: int, counts: list[int]) -> None:
    """T2.3."""
    encoded = encode(encoder(first=first, last=last), numbered_views(2, 49))
    assert [len(encoded.queries[k]) for k in range(first, last + 1)] == [2 * n for n in counts]
    assert encoded.pairs == tuple((k, k) for k in range(first, last + 1))


def test_each_offset_has_the_right_patch_and_its_identity() -> None:
    encoded = encode(encoder(rows=4, columns=3, last=3), numbered_views(2, 12))
    for offset in (1, 2, 3):
        expected = [
            (image, (row + offset) * 3 + column)
            for image in range(2)
            for row in range(4 - offset)
            for column in range(3)
        ]
        shown = [100.0 * image + position for image, position in expected]
        whose = [12 * image + position for image, position in expected]
        assert encoded.projections[offset][:, 0].tolist() == shown
        assert encoded.identities[offset].tolist() == whose


def test_slot_0_has_every_patch_once() -> None:
    encoded = encode(encoder(rows=4, columns=3, last=3), numbered_views(2, 12))
    assert encoded.identities[EVERY_PATCH].tolist() == list(range(24))
    shown = [100.0 * image + position for image in range(2) for position in range(12)]
    assert encoded.projections[EVERY_PATCH][:, 0].tolist() == shown
    assert EVERY_PATCH not in encoded.queries


def test_labels_of_the_second_paper() -> None:
    """T2.4: element e of two images' predictions three rows below."""
    encoded = encode(encoder(first=3, last=3), numbered_views(2, 49))
    labels = encoded.identities[3].tolist()
    assert len(labels) == 56
    assert [labels[e] for e in (0, 6, 7, 27, 28, 55)] == [21, 27, 28, 48, 70, 97]


def test_identities_are_those_of_the_data_set() -> None:
    network = encoder(rows=3, columns=3, last=2)
    whose = network.identities(torch.tensor([5, 1]))
    assert whose[0, 0, 0] == 45 and whose[1, 2, 2] == 17


def test_four_directions_look_from_all_sides() -> None:
    """Each prediction depends on patches on one side of its target only."""
    rows = columns = 3
    network = randomized(encoder(rows, columns, last=2, directions=4, context_layers=3))
    views = random_views(1, 9, requires_grad=True)
    encoded = encode(network, views)
    # Seen from the target (row, column), context lies above, right, below, left in turn.
    sides = (
        lambda r, c, tr, tc, k: r <= tr - k,
        lambda r, c, tr, tc, k: c >= tc + k,
        lambda r, c, tr, tc, k: r >= tr + k,
        lambda r, c, tr, tc, k: c <= tc - k,
    )
    for turns, offset in itertools.product(range(4), (1, 2)):
        slot = turns * 2 + offset
        for row, identity in enumerate(encoded.identities[slot].tolist()):
            gradients = torch.autograd.grad(
                encoded.queries[slot][row].square().sum(), views.crops, retain_graph=True
            )
            target_row, target_column = divmod(identity, columns)
            for position, gradient in enumerate(gradients):
                allowed = sides[turns](
                    *divmod(position, columns), target_row, target_column, offset
                )
                assert allowed or gradient.abs().sum() == 0
            assert sum(gradient.abs().sum() for gradient in gradients) > 0


@pytest.mark.parametrize("name", CONTEXTS)
def test_context_never_sees_below_itself(name: str) -> None:
    torch.manual_seed(0)
    network = CONTEXTS[name](6, 5, 2, 4)
    grid = torch.randn(1, 6, 5, 4, requires_grad=True)
    context = network(grid)
    assert context.shape == (1, network.width, 5, 4)
    for row in range(5):
        (gradient,) = torch.autograd.grad(context[:, :, row].sum(), grid, retain_graph=True)
        by_row = gradient.abs().sum(dim=(0, 1, 3))
        assert by_row[row + 1 :].eq(0).all()
        assert by_row[max(0, row - 1) : row + 1].gt(0).all()


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_a_recurrent_context_remembers_all_rows(name: str) -> None:
    torch.manual_seed(0)
    network = CONTEXTS[name](6, 5, 1, 1)
    assert isinstance(network.along, nn.Identity)
    grid = torch.randn(1, 6, 9, 1, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(grid)[:, :, -1].sum(), grid)
    assert gradient.abs().sum(dim=(0, 1, 3)).gt(0).all()


@pytest.mark.parametrize(
    "matrix, loss",
    [
        ([[2, 0], [0, 1]], 0.326563),
        ([[0, 1], [1, 0]], 0.758624),
        ([[1, 2], [0, 1]], 0.129109),
    ],
)
def test_scores_are_bilinear(matrix: list[list[float]], loss: float) -> None:
    """T2.1: z' W c; with W transposed the third would be 2.142932."""
    predictor = nn.Linear(2, 2, bias=False)
    predictor.weight.data = torch.tensor(matrix, dtype=torch.float32)
    z = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    queries = {1: predictor(torch.ones(1, 2))}
    keys = {EVERY_PATCH: z, 1: z[:1]}
    identities = {EVERY_PATCH: torch.arange(3), 1: torch.zeros(1, dtype=torch.int64)}
    encoded = Encoded(queries, keys, identities, ((1, 1),), {})
    drawn = EveryPatch(EveryPatch.Settings(), Plan()).draw_negatives(encoded, Step())
    component = InfoNCE(InfoNCE.Settings(temperature=1.0, cosine=False), Plan())
    value = component.compute_loss(encoded, Targets(keys, identities), (drawn,), Step())
    assert value.item() == pytest.approx(loss, abs=1e-6)


def loss_of(network: AutoregressiveEncoder, views: Views, draws: int = 0) -> tuple[Tensor, Encoded]:
    encoded = encode(network, views)
    negatives = EveryPatch(EveryPatch.Settings(draws=draws), Plan()).draw_negatives(
        encoded, Step(component="negatives")
    )
    component = InfoNCE(InfoNCE.Settings(temperature=1.0, cosine=False), Plan())
    targets = Targets(encoded.projections, encoded.identities)
    return component.compute_loss(encoded, targets, (negatives,), Step()), encoded


def test_the_first_loss_is_the_logarithm_of_the_number_of_patches() -> None:
    """T2.2: 16 images of 49 patches, log 784; with 16 draws at most log 17."""
    views = random_views(16, 49)
    assert loss_of(encoder(), views)[0].item() == pytest.approx(6.664409, abs=1e-5)
    drawn = loss_of(encoder(), views, draws=16)[0].item()
    # A draw that hits the target itself is none: one in 784.
    assert math.log(17) - 0.01 < drawn <= 2.833213 + 1e-5


def test_the_loss_is_the_formula() -> None:
    """Equation 4 in slow loops: every patch a candidate once, whatever its offset."""
    network = randomized(encoder(rows=4, columns=3, last=2))
    value, encoded = loss_of(network, random_views(3, 12))
    z = encoded.projections[EVERY_PATCH].double().tolist()
    means = []
    for offset in (1, 2):
        losses = []
        predictions = encoded.queries[offset].double().tolist()
        places = itertools.product(range(3), range(4 - offset), range(3))
        for prediction, (image, row, column) in zip(predictions, places, strict=True):
            scores = [sum(a * b for a, b in zip(prediction, other, strict=True)) for other in z]
            true = scores[image * 12 + (row + offset) * 3 + column]
            losses.append(math.log(sum(math.exp(s - true) for s in scores)))
        means.append(sum(losses) / len(losses))
    assert value.item() == pytest.approx(sum(means) / 2, rel=1e-5)


def test_predictions_are_the_matrix_of_the_offset_times_the_context() -> None:
    network = randomized(encoder(rows=4, columns=3, last=2, scale=0.1))
    views = random_views(2, 12)
    encoded = encode(network, views)
    z = torch.stack([network.trunk(crop) for crop in views.crops], dim=2).view(2, 4, 4, 3)
    context = network.context[0](z)
    for offset in (1, 2):
        matrix = network.predictors[offset - 1].weight
        rows = iter(encoded.queries[offset])
        for image, row, column in itertools.product(range(2), range(4 - offset), range(3)):
            expected = 0.1 * matrix @ context[image, :, row, column]
            torch.testing.assert_close(next(rows), expected)


def test_no_patch_is_its_own_negative_and_all_others_are() -> None:
    """Moving the target's own copy among the candidates changes nothing; any other does."""
    network = randomized(encoder(rows=3, columns=2, last=1))
    encoded = encode(network, random_views(2, 6))
    component = InfoNCE(InfoNCE.Settings(temperature=1.0, cosine=False), Plan())
    own = encoded.identities[1][:1]
    one = Encoded(
        {1: encoded.queries[1][:1]}, {1: encoded.projections[1][:1]}, {1: own}, ((1, 1),), {}
    )
    for candidate in range(12):
        every = encoded.projections[EVERY_PATCH].detach().clone().requires_grad_()
        whole = Encoded(
            one.queries,
            {**one.projections, EVERY_PATCH: every},
            {**one.identities, EVERY_PATCH: encoded.identities[EVERY_PATCH]},
            one.pairs,
            {},
        )
        negatives = EveryPatch(EveryPatch.Settings(), Plan()).draw_negatives(whole, Step())
        value = component.compute_loss(
            whole, Targets(one.projections, one.identities), (negatives,), Step()
        )
        (gradient,) = torch.autograd.grad(value, every)
        assert gradient[candidate].eq(0).all() == (candidate == own.item())


@pytest.mark.parametrize("norm, leaks", [("none", False), ("layer", False), ("batch", True)])
def test_without_batch_norm_patches_know_nothing_of_each_other(norm: str, leaks: bool) -> None:
    from coview.nn.backbones import BackboneSettings, resnet10_quarter

    spec = BackboneSpec("resnet10-quarter", resnet10_quarter, BackboneSettings(stem="3x3"))
    plan = Plan(layout=layout(2, 2), backbone=spec, batch_size=4)
    torch.manual_seed(0)
    network = AutoregressiveEncoder(AutoregressiveEncoder.Settings(norm=norm, last=1), plan)
    views = random_views(2, 4, requires_grad=True)
    features, _ = network.project(views, views.queries)
    (gradient,) = torch.autograd.grad(features[0].square().sum(), views.crops[3], allow_unused=True)
    assert (gradient is not None and gradient.abs().sum().item() > 0) is leaks


def test_targets_have_a_width_of_their_own() -> None:
    network = encoder(rows=3, columns=3, last=2, dim=6)
    encoded = encode(network, random_views(2, 9))
    assert network.dim == 6
    assert encoded.queries[1].shape == encoded.projections[1].shape == (12, 6)
    assert encoded.features[8].shape == (2, 4)


def test_the_exported_backbone_is_the_mean_over_patches() -> None:
    network = encoder(rows=2, columns=2, last=1)
    exported = network.backbone()
    assert isinstance(exported, MeanOverPatches) and exported.num_features == 4
    crops = numbered_views(3, 4).crops
    assert exported(*crops)[:, 0].tolist() == [1.5, 101.5, 201.5]


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"last": 7}, "last = 7 is outside the grid of 7 x 7 pieces: use 6 or less"),
        ({"first": 4, "last": 3}, "first = 4 is beyond encoder.last = 3"),
    ],
)
def test_offsets_beyond_the_grid(settings: dict[str, int], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        encoder(**settings)


def test_a_turned_grid_must_be_high_enough() -> None:
    with pytest.raises(RequestError, match="grid of 7 x 3 pieces: use 2 or less"):
        encoder(7, 3, last=3, directions=2)


def test_whole_image_views_are_refused() -> None:
    whole = Layout(((8, 8),) * 2, (1, 1), (0, 1), (0, 1), ((0, 1), (1, 0)))
    spec = BackboneSpec("corner", lambda channels, size, given: Corner())
    with pytest.raises(RequestError, match="use views that make a grid, such as patch-grid"):
        AutoregressiveEncoder(AutoregressiveEncoder.Settings(), Plan(layout=whole, backbone=spec))
    with pytest.raises(RequestError, match="these views are whole images: use .*'in-batch'"):
        EveryPatch(EveryPatch.Settings(), Plan(layout=whole))


def test_the_context_of_another_image_predicts() -> None:
    """A control: image b's predictions are those that image b - 1 makes for itself."""
    own, other = (randomized(encoder(context_of=kind)) for kind in ("own", "other"))
    other.load_state_dict(own.state_dict())
    views = random_views(3, 49)
    ours, theirs = encode(own, views), encode(other, views)
    for slot in ours.queries:
        by_image = ours.queries[slot].view(3, -1, own.dim).roll(1, dims=0).flatten(0, 1)
        assert torch.allclose(theirs.queries[slot], by_image)
        assert torch.equal(theirs.projections[slot], ours.projections[slot])
        assert torch.equal(theirs.identities[slot], ours.identities[slot])
