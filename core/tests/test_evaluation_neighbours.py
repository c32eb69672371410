"""Plain and weighted votes, rows on disk, and memory that is bounded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import attrs
import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from torch import Tensor, nn

from coview.data.base import DataSettings, ImageData, Split
from coview.data.sources.digits import Digits
from coview.errors import CoviewError
from coview.evaluation import neighbours
from coview.evaluation.knn import accuracy, evaluate_knn, vote
from coview.evaluation.neighbours import nearest
from coview.evaluation.rows import InFile, InMemory


def slow_nearest(rows: np.ndarray, queries: np.ndarray, k: int) -> tuple[list, list]:
    """Cosines one by one, sorted."""
    cosines, places = [], []
    for query in queries:
        found = []
        for place, row in enumerate(rows):
            found.append((query @ row / (np.linalg.norm(query) * np.linalg.norm(row)), place))
        found.sort(reverse=True)
        cosines.append([cosine for cosine, _ in found[:k]])
        places.append([place for _, place in found[:k]])
    return cosines, places


@pytest.mark.parametrize("block", [1, 7, 1000])
@pytest.mark.parametrize("stored", [False, True])
def test_nearest_in_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, stored: bool
) -> None:
    random = np.random.RandomState(0)
    train = torch.from_numpy(random.randn(40, 5)).to(torch.bfloat16).double()
    queries = torch.from_numpy(random.randn(9, 5))
    monkeypatch.setattr(neighbours, "BLOCK_BYTES", block * 5 * 8)
    monkeypatch.setattr(neighbours, "PIECE_VALUES", 3 * 5)
    rows = InFile.write(tmp_path / "f", train.float().split(16)) if stored else InMemory(train)
    got = list(nearest(rows, queries, 12, queries_at_once=4))
    assert [len(cosines) for cosines, _ in got] == [4, 4, 1]
    cosines, places = slow_nearest(train.numpy(), queries.numpy(), 12)
    assert torch.cat([place for _, place in got]).tolist() == places
    np.testing.assert_allclose(torch.cat([c for c, _ in got]).numpy(), cosines, atol=1e-12)


def crowd(count: int, width: int, spread: float, seed: int) -> torch.Tensor:
    """Rows so near to one another that bfloat16 cannot tell most of them apart."""
    make = torch.Generator().manual_seed(seed)
    return 1 + spread * torch.randn(count, width, generator=make)


@pytest.mark.parametrize("spread", [1.0, 1e-1, 1e-3])
@pytest.mark.parametrize("stored", [False, True])
def test_half_precision_only_proposes(tmp_path: Path, spread: float, stored: bool) -> None:
    train, queries = crowd(3000, 64, spread, 0), crowd(40, 64, spread, 1)
    rows = InFile.write(tmp_path / "f", train.split(999)) if stored else InMemory(train)
    exact = list(nearest(rows, queries, 20, half=False, queries_at_once=32))
    found = list(nearest(rows, queries, 20, half=True, queries_at_once=32))
    for (cosines, places), (got, where) in zip(exact, found, strict=True):
        torch.testing.assert_close(got, cosines, atol=1e-6, rtol=0)
        # Places of equal cosines may be told in any order.
        different = where != places
        assert (got - cosines)[different].abs().max().item() < 1e-6 if different.any() else True


def test_near_ties_beyond_the_spare_rows_are_within_the_stated_tolerance() -> None:
    """Hundreds of rows at nearly the k-th cosine: another of them may come, none further away."""
    make = torch.Generator().manual_seed(0)
    width, k = 256, 10
    query = torch.nn.functional.normalize(torch.randn(1, width, generator=make), dim=1)
    across = torch.randn(2000, width, generator=make)
    across = torch.nn.functional.normalize(across - (across @ query.T) * query, dim=1)
    cosine = torch.full((2000, 1), 0.7) + 1e-4 * torch.randn(2000, 1, generator=make)
    cosine[1000:] -= 2 * neighbours.TOLERANCE
    train = cosine * query + (1 - cosine**2).sqrt() * across
    ((exact, _),) = nearest(InMemory(train), query, k, half=False)
    ((got, places),) = nearest(InMemory(train), query, k, half=True)
    assert (exact - got).max() <= 2 * neighbours.TOLERANCE
    assert (places < 1000).all()
    torch.testing.assert_close(got, train[places[0]] @ query[0] + torch.zeros(1, k))


@pytest.mark.parametrize("block", [500, 10**6])
def test_half_precision_in_blocks_of_rows_that_are_sorted_by_class(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    """Far from the first rows' mean is far from no mean: products may be negative throughout."""
    make = torch.Generator().manual_seed(2)
    classes = 2 * torch.randn(4, 64, generator=make)
    train = classes.repeat_interleave(700, 0) + torch.randn(2800, 64, generator=make)
    queries = torch.cat([classes, -classes]) + torch.randn(8, 64, generator=make)
    ((exact, where),) = nearest(InMemory(train), queries, 30, half=False)
    monkeypatch.setattr(neighbours, "BLOCK_BYTES", block * 64 * 2)
    ((got, places),) = nearest(InMemory(train), queries, 30, half=True)
    torch.testing.assert_close(got, exact, atol=1e-6, rtol=0)
    assert (places == where).double().mean() > 0.99


def test_half_precision_is_for_what_is_large_and_is_part_of_the_protocol(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for native in (True, False):
        for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
            monkeypatch.setattr(torch.cpu, name, lambda native=native: native, raising=False)
        wide = torch.zeros(1, 512)
        assert neighbours.half_pays(50_000, wide, 200) is native
        assert not neighbours.half_pays(50_000, wide.double(), 200)
        assert not neighbours.half_pays(50_000, wide[:, :16], 200)
        assert not neighbours.half_pays(1000, wide, 200)
        words = neighbours.precision(torch.empty(50_000, 0), wide, 200)
        assert words == ("bfloat16, the best 232 again in float32" if native else "float32")
    assert neighbours.precision(torch.empty(50_000, 0), wide.double(), 200) == "float64"
    stored = InFile(Path("features.bf16"), 100, 512)
    words = neighbours.precision(stored, wide, 200)
    assert words == "float32, of features stored in bfloat16"
    train = torch.randn(4, 3)
    result = accuracy(train, torch.arange(4), train, torch.arange(4), 4, k=1)
    assert result.as_dict()["precision"] == "float32"


def test_rows_in_a_file(tmp_path: Path) -> None:
    rows = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    stored = InFile.write(tmp_path / "rows", rows.split(4))
    rounded = rows.to(torch.bfloat16)
    assert (tmp_path / "rows").stat().st_size == 60
    assert len(stored) == 10
    assert torch.equal(stored.block(2, 99), rounded[2:])
    places = torch.tensor([[9, 0], [3, 3]])
    assert torch.equal(stored.at(places), rounded[places])


@pytest.mark.parametrize("k", [1, 5, 200])
def test_plain_vote_against_scikit_learn(k: int) -> None:
    x, y = load_digits(return_X_y=True)
    reference = KNeighborsClassifier(k, metric="cosine").fit(x[:1200], y[:1200])
    shares = np.sort(reference.predict_proba(x[1200:]))
    decided = shares[:, -1] > shares[:, -2] + 1e-9  # scikit-learn gives ties to the lowest label
    assert decided.mean() > 0.9
    train, labels = torch.tensor(x[:1200]), torch.tensor(y[:1200])
    own = vote(train, labels, torch.tensor(x[1200:]), 10, k, temperature=None).argmax(1).numpy()
    assert (own == reference.predict(x[1200:]))[decided].all()


def test_a_tie_of_a_plain_vote_goes_to_the_nearer() -> None:
    train = torch.tensor([[1.0, 0.3], [1.0, 0.1], [1.0, -0.2], [1.0, 0.2]])
    labels = torch.tensor([0, 1, 0, 1])
    scores = vote(train, labels, torch.tensor([[1.0, 0.0]]), 2, 4, temperature=None)
    assert scores.argmax().item() == 1
    result = accuracy(train, labels, train, labels, 2, k=9, temperature=None)
    assert (result.k, result.temperature) == (4, None)
    assert result.as_dict()["protocol"] == "plain kNN, cosine"


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(64, 16)
        with torch.no_grad():
            generator = torch.Generator().manual_seed(0)
            self.layer.weight.copy_(torch.randn(16, 64, generator=generator))

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(nn.functional.avg_pool2d(images, 4).flatten(1))


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return Digits().load(DataSettings())


def test_a_set_too_large_for_memory_goes_to_disk(
    digits: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    original = InFile.write

    def write(path: Path, batches: object) -> InFile:
        written.append(path)
        return original(path, batches)

    monkeypatch.setattr(InFile, "write", write)
    inside = evaluate_knn(Net(), digits, k=20)
    assert not written
    outside = evaluate_knn(Net(), digits, k=20, most_in_memory=1000)
    assert len(written) == 1 and not written[0].exists()
    assert outside.top1 == pytest.approx(inside.top1, abs=0.01)
    assert outside.train_images == inside.train_images


def test_features_that_are_not_finite_leave_no_file(
    digits: ImageData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    network = Net()
    with torch.no_grad():
        network.layer.bias.fill_(float("nan"))
    few = attrs.evolve(digits, test=Split(digits.test.images[:0], digits.test.labels[:0]))
    with pytest.raises(CoviewError, match="1438 of 1438 images have features that are not"):
        evaluate_knn(network, few, most_in_memory=0)
    assert list(tmp_path.iterdir()) == []


def test_edges() -> None:
    """k beyond the set, a class of one image, and a label that only the test split has."""
    images = torch.zeros(5, 1, 32, 32, dtype=torch.uint8)
    for row, place in enumerate((0, 0, 0, 16, 28)):
        images[row, :, place : place + 4] = 250 - row
    train = Split(images[:4], torch.tensor([0, 0, 0, 1]))
    test = Split(images[2:], torch.tensor([0, 1, 2]))
    data = ImageData("few", train, test, train, ("a", "b", "c"), 1, 32, (0.0,), (1.0,), "x")
    result = evaluate_knn(Net(), data, k=1)
    assert (result.top1, result.classes) == (pytest.approx(2 / 3), 3)
    assert result.mean_per_class == pytest.approx(2 / 3)
    assert evaluate_knn(Net(), data, k=10**6).k == 4
    unnamed = attrs.evolve(data, classes=())
    assert evaluate_knn(Net(), unnamed, k=1).classes == 3


LARGE = """
import resource, sys, torch
from pathlib import Path
from coview.evaluation.knn import vote
from coview.evaluation.rows import InFile

torch.set_num_threads(1)
count, width, queries = 1_281_167, 2048, 48
path = Path(sys.argv[1])
generator = torch.Generator().manual_seed(0)
rows = torch.randn(queries, width, generator=generator).to(torch.bfloat16)
with path.open("wb") as file:
    file.truncate(count * width * 2)  # the others are holes: rows of zeros, cosine 0
    places = [(n + 1) * (count // (queries + 1)) for n in range(queries)]
    for row, place in zip(rows, places):
        file.seek(place * width * 2)
        file.write(row.view(torch.uint8).numpy().data)
labels = torch.zeros(count, dtype=torch.int64)
labels[places] = 1 + torch.arange(queries) % 9
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
scores = vote(InFile(path, count, width), labels, rows.float(), 10, k=200)
after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
assert scores.argmax(1).tolist() == labels[places].tolist()
print((after - before) // 1024)
"""


@pytest.mark.slow
def test_memory_is_bounded_on_a_set_of_imagenets_size(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", LARGE, str(tmp_path / "features")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # 5.2 GB of features; a block is 256 MiB in bfloat16.
    assert int(done.stdout) < 1024, f"{done.stdout.strip()} MiB"
