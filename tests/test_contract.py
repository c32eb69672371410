"""What the contract lets a recipe say: several losses, a mixture of views, wrappers, fields."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import torch
from small_parts import PAIRS, Distance, Flat, TwoViews, a_batch, a_method, part
from torch import nn

import coview
from coview import hookspecs
from coview.components import refuse_undeclared
from coview.data.base import ImageData, Split
from coview.data.loader import Batches
from coview.data.sources import open_source
from coview.errors import PluginError, RequestError
from coview.hookspecs import hookimpl
from coview.method.joining import joined, share
from coview.method.module import Method
from coview.method.neutral import Shared
from coview.method.spaces import matched
from coview.plan import Layout, Plan
from coview.records import Batch, Encoded, Step, Views
from coview.schedules import linear

Run = Callable[..., Any]


# --- several losses -------------------------------------------------------------------------


def test_losses_are_summed_by_weight_and_logged_by_name() -> None:
    logged: dict[str, float] = {}
    step = Step(number=5, total_steps=10, sink=lambda name, v: logged.update({name: v.item()}))
    alone = a_method()(a_batch(), Step()).item()
    both = a_method(
        part("loss", Distance(), "near"),
        part("loss", Distance(3.0), "far", linear(0.0, 1.0, per="step")),
    )
    weight = linear(0.0, 1.0, per="step").at(step)
    assert 0 < weight < 1
    assert both(a_batch(), step).item() == pytest.approx(alone * (1 + 3 * weight), rel=1e-6)
    assert logged == pytest.approx({"loss_near": alone, "loss_far": 3 * alone}, rel=1e-6)


def test_one_loss_may_have_a_weight() -> None:
    alone = a_method()(a_batch(), Step()).item()
    weighed = a_method(part("loss", Distance(), weight=0.25))
    assert weighed(a_batch(), Step()).item() == pytest.approx(alone / 4, rel=1e-6)


def test_an_observer_still_wraps_the_whole_loss() -> None:
    class Doubling:
        @hookimpl(wrapper=True)
        def compute_loss(self) -> Any:
            return (yield) * 2

    method = a_method(part("loss", Distance(), "a"), part("loss", Distance(), "b"))
    before = method(a_batch(), Step()).item()
    method.observe(Doubling(), "doubling")
    assert method(a_batch(), Step()).item() == pytest.approx(2 * before)


def test_several_losses_on_the_command_line(run: Run, refused: Run, tiny: tuple[str, ...]) -> None:
    use = ("--use", "loss=info-nce,regression", "--set", "loss.regression.weight=0.1")
    options = ("--data", "digits", *tiny, "--no-evaluate", "--log-every", 1)
    run("train", "simclr", *options, *use, "--max-steps", 2, "--out", "r")
    lines = [json.loads(line) for line in Path("r/metrics.jsonl").read_text().splitlines()]
    first = next(line for line in lines if "loss_regression" in line)
    parts = first["loss_info-nce"] + 0.1 * first["loss_regression"]
    assert first["loss"] == pytest.approx(parts, rel=1e-5)
    # What was resolved is repeated and resumed with its weights.
    shown = run("show", "r/recipe.toml", "--json").json["tables"]["loss"]
    assert [(part["use"], part["weight"]) for part in shown] == [
        ("info-nce", 1.0),
        ("regression", 0.1),
    ]
    assert "loss: regression  [coview-byol]  weight 0.1" in run("show", "r/recipe.toml").stdout
    run("train", "--resume", "r", "--max-steps", 3, "--no-evaluate", "--device", "cpu")
    (problem,) = refused("train", "simclr", *options, "--set", "loss.weight=-1")
    assert "loss.weight" in problem and "-1" in problem
    (problem,) = refused("train", "simclr", *options, "--set", "encoder.weight=1")
    assert "encoder" in problem and "weight" in problem


def test_a_recipe_of_one_loss_is_written_as_before() -> None:
    one = coview.recipe("simclr")
    assert one.loss.name == "info-nce" and isinstance(one.loss.settings, dict)
    two = attrs.evolve(one, loss=(coview.Use("info-nce"), coview.Use("regression", weight=0.5)))
    assert [use.name for use in two.uses("loss")] == ["info-nce", "regression"]


# --- a mixture of views ----------------------------------------------------------------------


def test_each_step_draws_one_views_component_by_weight() -> None:
    method = a_method(
        part("views", TwoViews(0.0), "same"), part("views", TwoViews(1.0), "noisy", 3.0)
    )
    losses = [method(a_batch(), Step(number=n)).item() for n in range(200)]
    noisy = sum(loss > 1e-12 for loss in losses)
    assert 120 < noisy < 180  # three of four
    again = [method(a_batch(), Step(number=n)).item() for n in range(200)]
    assert losses == again
    assert losses != [method(a_batch(), Step(number=n, seed=1)).item() for n in range(200)]


def test_a_mixture_of_other_sizes_is_refused(refused: Run, tiny: tuple[str, ...]) -> None:
    options = ("--data", "digits", *tiny, "--use", "views=simclr,multi-crop")
    (problem,) = refused("train", "simclr", *options)
    assert "views 'multi-crop' of package coview-swav makes other views" in problem


# --- wrappers ---------------------------------------------------------------------------------


class Halved(nn.Module):
    """Halves queries, and counts what it saw of a step and a run."""

    def __init__(self, factor: float = 0.5, added: float = 0.0) -> None:
        super().__init__()
        self._factor, self._added, self._seen = factor, added, []  # type: ignore[var-annotated]

    @hookimpl(wrapper=True)
    def encode(self, views: Views, step: Step) -> Any:
        encoded = yield
        rows = {s: self._factor * (q + self._added) for s, q in encoded.queries.items()}
        return attrs.evolve(encoded, queries=rows)

    @hookimpl
    def update_target(self, encoded: Encoded, step: Step) -> None:
        self._seen.append(("update", step.component))

    @hookimpl
    def run_started(self, run: Any) -> None:
        self._seen.append(("run", run))


def test_a_wrapper_changes_what_a_role_returns_without_replacing_it() -> None:
    wrapper = Halved()
    method = a_method(part("wrap", wrapper, "halved"))
    loss = method(a_batch(), Step())
    encoded = method.components["encoder"].encode(
        TwoViews().generate_views(a_batch(), Step()), a_batch()
    )
    queries, keys = encoded.queries, encoded.projections
    terms = [(0.5 * queries[q] - keys[k]).square().mean() for q, k in PAIRS]
    assert loss.item() == pytest.approx(torch.stack(terms).mean().item(), rel=1e-6)
    method.update_target(Step())
    method.manager.hook.run_started(run="a run")
    assert wrapper._seen == [("update", "halved"), ("run", "a run")]


def test_the_first_wrapper_is_the_innermost() -> None:
    def loss(*wrappers: nn.Module) -> float:
        parts = [part("wrap", wrapper, str(n)) for n, wrapper in enumerate(wrappers)]
        method = a_method(*parts)
        value: float = method(a_batch(), Step()).item()
        return value

    # Half of q + 1, against half of q, plus 1: what a wrapper sees is what those before it made.
    adding, halving = Halved(1.0, 1.0), Halved(0.5)
    assert loss(adding, halving) == pytest.approx(loss(Halved(0.5, 1.0)), rel=1e-6)
    assert loss(halving, adding) == pytest.approx(loss(Halved(0.5, 2.0)), rel=1e-6)
    assert loss(adding, halving) != pytest.approx(loss(halving, adding), rel=1e-3)


# --- the space that queries live in -----------------------------------------------------------


class Scored(Flat):
    """Queries are scores of as many prototypes as embeddings are wide, or more."""

    queries_are = "scores"

    def __init__(self, prototypes: int = 3) -> None:
        super().__init__()
        self.prototypes = nn.Linear(3, prototypes)

    @hookimpl
    def encode(self, views: Views, batch: Batch) -> Encoded:
        encoded = super().encode(views, batch)
        scores = {slot: self.prototypes(z) for slot, z in encoded.projections.items()}
        return attrs.evolve(encoded, queries=scores)


class Close(Distance):
    """Compares queries with keys, and keeps what it last saw of them."""

    same_space = True

    @hookimpl
    def update_target(self, encoded: Encoded) -> None:
        self._seen = encoded.queries


def spaced(*losses: nn.Module, encoder: nn.Module) -> tuple[Method, list[str]]:
    """Return a method of an encoder and losses as a run builds it, and what the run is told."""
    told: list[str] = []
    parts = [part("loss", loss, f"loss-{number}") for number, loss in enumerate(losses)]
    built = a_method(*parts, encoder=encoder).parts
    return Method(matched(built, told.append)), told


def test_a_loss_that_compares_gets_projections_where_queries_are_scores() -> None:
    encoder, close, free = Scored(), Close(), Distance()
    method, told = spaced(close, free, encoder=encoder)
    logged: dict[str, float] = {}
    step = Step(sink=lambda name, value: logged.update({name: value.item()}))
    method(a_batch(), step).backward()
    method.update_target(step)
    encoded = encoder.encode(TwoViews().generate_views(a_batch(), Step()), a_batch())
    z, scores = encoded.projections, encoded.queries
    for name, rows in {"loss_loss-0": z, "loss_loss-1": scores}.items():
        far = torch.stack([(rows[q] - z[k]).square().mean() for q, k in PAIRS]).mean()
        assert logged[name] == pytest.approx(far.item(), rel=1e-6)
    assert all(torch.equal(close._seen[slot], rows) for slot, rows in z.items())
    (said,) = told
    assert said.startswith("loss 'loss-0' compares projections with keys; the scores that encoder")


def test_scores_that_no_loss_takes_are_refused() -> None:
    with pytest.raises(RequestError) as caught:
        spaced(Close(), Close(), encoder=Scored())
    (problem,) = caught.value.problems
    assert "queries of encoder 'my-encoder' of package coview-a are scores" in problem
    assert "--use encoder=projection" in problem and "--use loss=NAME,loss-0,loss-1" in problem


def test_queries_of_another_width_are_refused_where_a_loss_compares_them() -> None:
    class Undeclared(Scored):
        queries_are = ""

    method, told = spaced(Close(), encoder=Undeclared(prototypes=5))
    with pytest.raises(PluginError) as caught:
        method(a_batch(), Step())
    assert not told
    assert str(caught.value).startswith(
        "loss 'loss-0' of package coview-a compares queries with keys, but queries[0] of encoder "
        "'my-encoder' of package coview-a has width 5, and keys[1] has width 3."
    )
    # A loss that says nothing is given what it always was.
    method, _ = spaced(Sizes(), encoder=Undeclared(prototypes=5))
    assert method(a_batch(), Step()).item() == 5


class Sizes(nn.Module):
    """The width of its queries, as a loss."""

    @hookimpl
    def compute_loss(self, encoded: Encoded) -> Any:
        rows = encoded.queries[0]
        return rows.shape[-1] + 0 * rows.sum()


def test_swavs_loss_beside_infonce(run: Run, refused: Run, tiny: tuple[str, ...]) -> None:
    options = ("--data", "digits", *tiny, "--no-evaluate", "--log-every", 1, "--max-steps", 1)
    options = (*options, "--use", "negatives=in-batch")
    first = []
    for count in (128, 300):  # as wide as an embedding, and wider
        many = ("--set", f"encoder.prototypes={count}", "--out", count)
        done = run("train", "swav", *options, *many, "--use", "loss=swapped-prediction,info-nce")
        said = done.stdout + done.stderr
        assert "loss 'info-nce' compares projections with keys" in said
        assert "loss 'swapped-prediction' also gets the negatives that 'info-nce' needs" in said
        assert "loss 'info-nce' also gets" not in said
        line = Path(str(count), "metrics.jsonl").read_text().splitlines()[0]
        first.append(json.loads(line))
    # The prototypes are built last, so backbone and head have the same weights at first.
    assert first[0]["loss_info-nce"] == pytest.approx(first[1]["loss_info-nce"], rel=1e-6)
    assert first[0]["loss_swapped-prediction"] < first[1]["loss_swapped-prediction"]
    (problem,) = refused("train", "swav", *options, "--out", "r", "--use", "loss=info-nce")
    assert "of package coview-swav are scores, and no loss takes them" in problem


# --- slots of an encoder's own ----------------------------------------------------------------


class ImageAndText(nn.Module):
    """Slot 0 is an image, slot 1 the text of its number."""

    dim, by_view, slots = 3, False, {0: "image", 1: "text"}

    def __init__(self, pairs: Any = PAIRS, text: bool = True) -> None:
        super().__init__()
        self.layer, self.words = nn.Linear(16, 3), nn.Embedding(4, 3)
        self._pairs, self._text = pairs, text

    @hookimpl
    def encode(self, views: Views, batch: Batch) -> Encoded:
        z = {0: self.layer(views.crops[0].flatten(1)), 1: self.words(batch.indices)}
        theirs = z if self._text else {0: z[0]}
        return Encoded(z, theirs, dict.fromkeys(z, batch.indices), self._pairs, {0: z[0]})

    def project(self) -> None:
        """Encoders have one."""


class OneView(TwoViews):
    """One view, its own positive for encoders that know nothing else."""

    layout = Layout(((4, 4),), (1,), (0,), (0,), ((0, 0),))

    @hookimpl
    def generate_views(self, batch: Batch, step: Step) -> Views:
        return Views((batch.images.float() / 255,), (0,), (0,), ((0, 0),))


def with_texts(encoder: nn.Module) -> Method:
    """Return a method of images and texts, whose target shares the encoder."""
    shared = Shared(Shared.Settings(), Plan(layout=OneView.layout, encoder=encoder))
    return a_method(views=OneView(), encoder=encoder, target=shared)


def test_a_shared_target_takes_the_slots_that_an_encoder_has() -> None:
    encoder = ImageAndText()
    loss = with_texts(encoder)(a_batch(), Step())
    images = encoder.layer(a_batch().images.float().flatten(1) / 255)
    expected = (images - encoder.words(torch.arange(4))).square().mean()
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in encoder.parameters())


@pytest.mark.parametrize(
    ("encoder", "said"),
    [
        (lambda: ImageAndText(text=False), "which has none of the key slots [1]"),
        (lambda: ImageAndText(pairs=((0, 1), (1, 1))), "the rows of a slot with themselves"),
    ],
)
def test_a_shared_target_refuses_slots_without_keys(
    encoder: Callable[[], nn.Module], said: str
) -> None:
    with pytest.raises(RequestError, match=re.escape(said)) as caught:
        with_texts(encoder())(a_batch(), Step())
    assert "--use target=momentum" in str(caught.value)


# --- fields -----------------------------------------------------------------------------------


def some_data(**fields: Any) -> ImageData:
    images = torch.arange(20, dtype=torch.uint8).view(20, 1, 1, 1).expand(20, 1, 4, 4).contiguous()
    split = Split(images, torch.arange(20) % 5, fields=fields)
    return ImageData("mine", split, None, split, ("a",), 1, 4, (0.5,), (0.5,), "print")


def test_batches_have_the_fields_that_were_asked_for_and_no_others() -> None:
    captions = [f"number {n}" for n in range(20)]
    data = some_data(captions=captions, place=torch.arange(40.0).view(20, 2))
    assert all(b.fields == {} for b in Batches(data.train, 4, 0, "cpu").epoch(0))
    asked = ("labels", "captions", "place")
    for batch in Batches(data.train, 4, 0, "cpu", fields=asked).epoch(0):
        rows = batch.indices.tolist()
        assert list(batch.fields) == list(asked)
        assert batch.fields["labels"].tolist() == [row % 5 for row in rows]
        assert batch.fields["captions"] == [captions[row] for row in rows]
        assert batch.fields["place"].tolist() == [[2.0 * row, 2.0 * row + 1] for row in rows]
        assert batch.images[:, 0, 0, 0].tolist() == rows
    # Micro-batches of a step are joined by rows, whatever the field is.
    first, second, *_ = Batches(data.train, 4, 0, "cpu", fields=asked).epoch(0)
    whole = joined([first, second])
    assert whole.fields["captions"] == first.fields["captions"] + second.fields["captions"]
    assert len(whole.fields["place"]) == 8


def test_micro_batches_keep_their_fields() -> None:
    captions = [f"number {n}" for n in range(20)]
    data = some_data(captions=captions)
    (batch, *_) = Batches(data.train, 6, 0, "cpu", fields=("labels", "captions")).epoch(0)
    parts = [share(batch, number, 3) for number in range(3)]
    assert [len(micro.indices) for micro in parts] == [2, 2, 2]
    for micro in parts:
        rows = micro.indices.tolist()
        assert micro.images[:, 0, 0, 0].tolist() == rows
        assert micro.fields["labels"].tolist() == [row % 5 for row in rows]
        assert micro.fields["captions"] == [captions[row] for row in rows]
    whole = joined(parts)
    assert torch.equal(whole.indices, batch.indices)
    assert whole.fields["captions"] == batch.fields["captions"]


def test_a_field_is_that_of_the_image_that_is_shown() -> None:
    data = some_data(number=torch.arange(20))
    batches = Batches(data.train, 4, 0, "cpu", fields=("number",))
    from coview.data.bad_images import stand_ins

    data.train.bad.add([(7, "7.png is broken")], 1000)
    shown = next(stand_ins(7, 20))
    seen = {
        row: number
        for batch in batches.epoch(0)
        for row, number in zip(batch.indices.tolist(), batch.fields["number"].tolist(), strict=True)
    }
    assert seen.pop(7) == shown != 7
    assert all(row == number for row, number in seen.items())


LABELLED = '''
import attrs, torch
from torch import nn
from coview import hookimpl


class ByLabel(nn.Module):
    """Keep what it is given."""

    needs_fields = ("labels",)

    @attrs.frozen
    class Settings:
        """No settings."""

    def __init__(self, settings, plan):
        super().__init__()

    @hookimpl
    def compute_loss(self, encoded, batch):
        labels = batch.fields["labels"]
        assert labels.shape == batch.indices.shape and list(batch.fields) == ["labels"]
        return sum(rows.square().mean() for rows in encoded.queries.values())
'''


def test_labels_enter_training_only_where_a_method_asks(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[Any] = []

    class Watching:
        @hookimpl
        def update_target(self, batch: Batch) -> None:
            seen.append(dict(batch.fields))

    options: dict[str, Any] = {
        "preset": "tiny", "batch_size": 16, "max_steps": 1, "evaluate": False, "progress": False,
    }  # fmt: skip
    for number, method in enumerate(entry_names()):
        run = coview.train(
            method, "digits", out=tmp_path / str(number), observe=[Watching()], **options
        )
        assert run.data.labelled
    assert len(seen) == 12 and not any(seen)


def entry_names() -> list[str]:
    return [
        *("instdisc", "cpc", "cmc", "moco", "simclr", "moco-v2", "simclr-v2", "swav", "byol"),
        *("simsiam", "moco-v3", "dino"),
    ]


def test_a_missing_field_is_refused_with_who_has_it() -> None:
    from coview.recipes.configure import Changes, configure
    from coview.training.fields import fields_for

    resolved = configure("simclr", 32, Changes(), "test")
    scope: dict[str, Any] = {}
    exec(LABELLED, scope)
    loss = attrs.evolve(resolved.part("loss"), factory=scope["ByLabel"], name="by-label")
    asking = attrs.evolve(resolved, parts={**resolved.parts, "loss": (loss,)})
    data = some_data(captions=[""] * 20)
    assert fields_for(resolved, data) == ()
    assert fields_for(asking, data) == ("labels",)
    unlabelled = attrs.evolve(data, train=attrs.evolve(data.train, labels=None))
    with pytest.raises(RequestError) as caught:
        fields_for(asking, unlabelled)
    (problem,) = caught.value.problems
    assert problem.startswith(
        "loss 'by-label' of package coview-cpc needs the field 'labels' of every image, which mine "
        "does not have (it has: captions). Data sets that may have it: "
    )
    assert "digits" in problem and problem.endswith("list:FILE, from a column 'labels'.")
    label = attrs.evolve(unlabelled.train, fields={"label": [""] * 20})
    with pytest.raises(RequestError, match="If its label are meant, call them 'labels'"):
        fields_for(asking, attrs.evolve(unlabelled, train=label))


def test_a_split_of_a_split_keeps_its_fields() -> None:
    from coview.data.splits import part as part_of

    data = some_data(captions=[str(n) for n in range(20)], place=torch.arange(20))
    some = part_of(data.train, torch.tensor([3, 1]))
    assert some.fields["captions"] == ["3", "1"] and some.fields["place"].tolist() == [3, 1]
    assert open_source("digits").load(coview_settings()).train.fields == {}


def coview_settings() -> Any:
    from coview.recipes.tables import DataSettings

    return DataSettings()


# --- versions ---------------------------------------------------------------------------------


def test_a_component_of_a_later_contract_is_refused() -> None:
    class Later(Distance):
        """Written for what does not exist yet."""

        contract = hookspecs.VERSION + 1

    with pytest.raises(PluginError, match="for version 2 of coview's hooks; this coview has 1"):
        refuse_undeclared(Later(), "loss 'later'", ("loss",))


def test_a_renamed_hook_or_argument_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(hookspecs.RENAMED, "augment", "generate_views")
    monkeypatch.setitem(hookspecs.RENAMED, "image_batch", "batch")

    class Old(Distance):
        """Of an earlier version."""

        @hookimpl
        def augment(self) -> None:
            """Long ago."""

    with pytest.raises(PluginError, match="the hook 'augment' is called 'generate_views' now"):
        a_method(part("loss", Old()))

    class OldArgument(Distance):
        """Of an earlier version."""

        @hookimpl
        def update_target(self, image_batch: Any) -> None:
            """Long ago."""

    with pytest.raises(PluginError, match="of update_target 'image_batch' is called 'batch'"):
        a_method(part("loss", OldArgument()))
