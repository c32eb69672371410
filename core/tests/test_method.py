"""The relay: who answers which hook, what a component sees, and what a broken one is told."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import torch
from small_parts import Flat
from torch import Tensor, nn

from coview.errors import CoviewError, PluginError
from coview.hookspecs import hookimpl
from coview.method.module import Method
from coview.method.neutral import NoNegatives, Shared
from coview.method.relay import BuiltComponent
from coview.nn.encoder import Encoder, EncoderSettings
from coview.plan import Layout, Plan
from coview.records import Batch, Encoded, Negatives, Step, Targets, Views


class TwoViews(nn.Module):
    """The images, and the images with noise."""

    layout = Layout(((4, 4),) * 2, (1, 1), (0, 1), (0, 1), ((0, 1), (1, 0)))

    @hookimpl
    def generate_views(self, batch: Batch, step: Step) -> Views:
        images = batch.images.float() / 255
        noise = torch.rand(images.shape, generator=step.generator)
        return Views((images, images + noise), (0, 1), (0, 1), self.layout.pairs)


class Distance(nn.Module):
    """Mean squared distance; records what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.negatives: tuple[Negatives, ...] = ()

    @hookimpl
    def compute_loss(
        self, encoded: Encoded, targets: Targets, negatives: tuple[Negatives, ...]
    ) -> Tensor:
        self.negatives = negatives
        terms = [(encoded.queries[q] - targets.keys[k]).square().mean() for q, k in encoded.pairs]
        return torch.stack(terms).mean()


class Memory(nn.Module):
    """Fills two roles and both open hooks; counts calls."""

    def __init__(self, tag: int = 0) -> None:
        super().__init__()
        self.register_buffer("rows", torch.full((2, 3), float(tag)))
        self.calls: list[str] = []

    @hookimpl
    def encode_targets(self, encoded: Encoded) -> Targets:
        self.calls.append("encode_targets")
        return Targets({s: z.detach() for s, z in encoded.projections.items()}, encoded.identities)

    @hookimpl
    def draw_negatives(self, targets: Targets) -> Negatives:
        self.calls.append("draw_negatives")
        return Negatives(dict.fromkeys(targets.keys, self.rows), dict.fromkeys(targets.keys))

    @hookimpl
    def gradients_ready(self, step: Step) -> None:
        self.calls.append(f"gradients_ready {step.number}")

    @hookimpl
    def update_target(self, batch: Batch, encoded: Encoded) -> None:
        assert not torch.is_grad_enabled()
        assert not encoded.queries[0].requires_grad
        self.calls.append(f"update_target {batch.indices.tolist()}")


def component(role: str, module: nn.Module, *more: str, name: str = "") -> BuiltComponent:
    return BuiltComponent(name or role, module, (role, *more), f"my-{role}", "coview-test")


def a_method(*extra: BuiltComponent, **replaced: nn.Module) -> Method:
    parts = {
        "views": TwoViews(),
        "encoder": Flat(),
        "target": Shared(Shared.Settings(), Plan()),
        "negatives": NoNegatives(NoNegatives.Settings(), Plan()),
        "loss": Distance(),
    }
    taken = {role for c in extra for role in c.roles if role != "negatives"}
    kept = {r: m for r, m in {**parts, **replaced}.items() if r not in taken}
    if any("negatives" in c.roles for c in extra):
        del kept["negatives"]
    return Method([*(component(r, m) for r, m in kept.items()), *extra])


def a_batch(*indices: int) -> Batch:
    numbers = torch.tensor(indices or (0, 1, 2))
    images = torch.arange(16, dtype=torch.uint8).view(1, 1, 4, 4).expand(len(numbers), 1, 4, 4)
    return Batch(images.contiguous(), numbers)


def test_a_step() -> None:
    memory = Memory()
    method = a_method(component("target", memory, "negatives"))
    step = Step(number=7, total_steps=10)
    loss = method(a_batch(5, 6), step)
    loss.backward()
    method.gradients_ready(step)
    method.update_target(step)
    assert method.encoder.layer.weight.grad is not None
    assert memory.calls == [
        "encode_targets",
        "draw_negatives",
        "gradients_ready 7",
        "update_target [5, 6]",
    ]
    assert [k for k in method.state_dict() if "rows" in k] == ["components.target.rows"]


def test_a_component_answers_only_for_its_roles() -> None:
    """A bank as target beside another source of negatives gives no negatives itself."""
    target, source = Memory(1), Memory(2)
    method = a_method(component("target", target), component("negatives", source))
    method(a_batch(), Step())
    assert target.calls == ["encode_targets"]
    assert source.calls == ["draw_negatives"]
    method.update_target(Step())
    assert target.calls[-1] == source.calls[-1] == "update_target [0, 1, 2]"


def test_negatives_come_in_the_recipes_order_uncopied() -> None:
    one, two = Memory(1), Memory(2)
    method = a_method(
        component("negatives", one), component("negatives", two, name="negatives-two")
    )
    method(a_batch(), Step())
    loss = method.components["loss"]
    assert isinstance(loss, Distance)
    assert [part.vectors[0] is m.rows for part, m in zip(loss.negatives, (one, two), strict=True)]
    assert [part.vectors[0][0, 0].item() for part in loss.negatives] == [1.0, 2.0]


def test_no_negatives_are_an_empty_tuple() -> None:
    method = a_method()
    method(a_batch(), Step())
    loss = method.components["loss"]
    assert isinstance(loss, Distance)
    assert loss.negatives == ()


def test_micro_batches_are_joined_for_the_open_hooks() -> None:
    memory = Memory()
    method = a_method(component("target", memory, "negatives"))
    for micro, indices in enumerate(((0, 1), (2, 3))):
        method(a_batch(*indices), Step(micro=micro))
    method.update_target(Step())
    assert memory.calls[-1] == "update_target [0, 1, 2, 3]"


def test_records_of_a_step_that_was_never_finished_are_dropped() -> None:
    memory = Memory()
    method = a_method(component("target", memory, "negatives"))
    for number in range(3):
        method(a_batch(number), Step(number=number, total_steps=3))
    method.update_target(Step(number=2, total_steps=3))
    assert memory.calls[-1] == "update_target [2]"
    with pytest.raises(CoviewError, match="forward pass of the same step"):
        method.update_target(Step(number=2, total_steps=3))


def test_each_component_has_its_own_randomness() -> None:
    class Noisy(Distance):
        def __init__(self) -> None:
            super().__init__()
            self.drawn = 0.0

        @hookimpl
        def compute_loss(self, encoded: Encoded, step: Step) -> Tensor:
            self.drawn = torch.rand((), generator=step.generator).item()
            return encoded.queries[0].mean()

    noisy = Noisy()
    method = a_method(loss=noisy)
    method(a_batch(), Step(seed=1))
    own = torch.rand((), generator=Step(seed=1).within("loss").generator).item()
    assert noisy.drawn == own
    method(a_batch(), Step(seed=1))
    assert noisy.drawn == own


def test_an_error_carries_the_component_and_its_package() -> None:
    class Failing(Distance):
        @hookimpl
        def compute_loss(self) -> Tensor:
            raise ValueError("no")

    with pytest.raises(ValueError, match="no") as caught:
        a_method(loss=Failing())(a_batch(), Step())
    assert "in loss 'my-loss' of package coview-test" in caught.value.__notes__


class UnknownArgument(nn.Module):
    @hookimpl
    def compute_loss(self, enconded: Encoded) -> Tensor:
        return torch.zeros(())


class Misspelt(Distance):
    @hookimpl
    def update_targets(self) -> None:
        """A hook that does not exist."""


class Unmarked(nn.Module):
    def compute_loss(self, encoded: Encoded) -> Tensor:
        return torch.zeros(())


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (UnknownArgument(), "enconded"),
        (Misspelt(), "a hook 'update_targets' that does not exist. Did you mean 'update_target'"),
        (Unmarked(), "fills 'loss', but has no @hookimpl compute_loss"),
    ],
)
def test_broken_components_are_refused_when_built(broken: nn.Module, said: str) -> None:
    with pytest.raises(PluginError, match="coview-test") as caught:
        a_method(loss=broken)
    assert said in str(caught.value)


def test_every_role_is_filled_once() -> None:
    with pytest.raises(CoviewError, match="Role 'encoder' needs exactly one component; 2 fill it"):
        a_method(component("encoder", Flat()), component("encoder", Flat(), name="second"))
    with pytest.raises(CoviewError, match="Role 'views' needs exactly one component; 0 fill it"):
        Method([component("loss", Distance())])


def test_observers_wrap_roles_without_knowing_the_method() -> None:
    class Doubling:
        @hookimpl(wrapper=True)
        def compute_loss(self) -> Any:
            loss = yield
            return loss * 2

    method = a_method()
    before = method(a_batch(), Step()).item()
    method.observe(Doubling(), "doubling")
    assert method(a_batch(), Step()).item() == pytest.approx(2 * before)


def test_a_misspelt_observer_is_refused() -> None:
    class Wrong:
        @hookimpl
        def step_finnished(self) -> None:
            """A typing mistake."""

    with pytest.raises(PluginError, match="Did you mean 'step_finished'"):
        a_method().observe(Wrong(), "wrong")


# --- the encoder's base ---------------------------------------------------------------------


class Trunk(nn.Module):
    """Counts its calls; batch norm makes rows of one call depend on each other."""

    num_features = 4

    def __init__(self, norm: bool) -> None:
        super().__init__()
        self.body = nn.Conv2d(1, 4, 1)
        self.norm = nn.BatchNorm2d(4) if norm else nn.Identity()
        self.rows: list[int] = []

    def forward(self, x: Tensor) -> Tensor:
        self.rows.append(len(x))
        return self.norm(self.body(x)).mean((2, 3))


@attrs.frozen
class Spec:
    norm: bool

    def build(self, channels: int, size: int) -> nn.Module:
        return Trunk(self.norm)


def an_encoder(norm: bool = True, **settings: Any) -> Encoder:
    layout = Layout(((4, 4), (4, 4), (2, 2)), (1,) * 3, (0, 1, 2), (0,), ((1, 0),))
    plan = Plan(batch_size=8, backbone=Spec(norm), layout=layout)  # type: ignore[arg-type]
    encoder = Encoder(EncoderSettings(**settings), plan, 4)
    encoder.projector = nn.Identity()
    return encoder


def some_views() -> Views:
    torch.manual_seed(0)
    crops = (torch.randn(8, 1, 4, 4), torch.randn(8, 1, 4, 4), torch.randn(8, 1, 2, 2))
    return Views(crops, (0, 1, 2), (0,), ((1, 0),))


@pytest.mark.parametrize(
    ("norm", "settings", "calls"),
    [
        (True, {"norm_views": "each"}, [8, 8, 8]),
        (True, {"norm_views": "resolution"}, [16, 8]),
        (True, {"norm_views": "joint"}, [16, 8]),
        (False, {"norm_views": "each"}, [16, 8]),
        (True, {"norm_views": "joint", "norm_groups": 4}, [4, 4, 4, 4, 2, 2, 2, 2]),
    ],
)
def test_backbone_calls(norm: bool, settings: dict[str, Any], calls: list[int]) -> None:
    encoder = an_encoder(norm, **settings)
    encoder.project(some_views(), (0, 1, 2))
    assert encoder.trunk.rows == calls


def test_groups_are_normalised_apart_and_rows_keep_their_places() -> None:
    encoder, views = an_encoder(norm_groups=2), some_views()
    features, _ = encoder.project(views, (0,))
    by_hand = torch.cat([encoder.trunk(half) for half in views.crops[0].chunk(2)])
    assert torch.allclose(features[0], by_hand, atol=1e-6)
    whole = encoder.trunk(views.crops[0])
    assert not torch.allclose(features[0], whole, atol=1e-3)


def test_the_copy_without_predictor() -> None:
    encoder = an_encoder()
    encoder.predictor = nn.Linear(4, 4)
    copied = encoder.without_predictor()
    assert copied.predictor is None
    assert encoder.predictor is not None
    assert all(
        torch.equal(p, dict(encoder.named_parameters())[n])
        and p is not dict(encoder.named_parameters())[n]
        for n, p in copied.named_parameters()
    )


def test_too_many_groups_are_refused() -> None:
    with pytest.raises(Exception, match="norm_groups = 8 leaves 1 image"):
        an_encoder(norm_groups=8)
