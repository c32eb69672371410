"""What would make the host wait is noticed, also where a CPU dispatches nothing for it."""

import pytest
import torch

from coview.testing import Synchronisations


@pytest.mark.parametrize(
    "read, name",
    [
        (lambda x: x.tolist(), "tolist"),
        (lambda x: x.sum().item(), "_local_scalar_dense"),
        (lambda x: x[x > 1], "index"),
        (lambda x: x.nonzero(), "nonzero"),
        (lambda x: x.new_tensor([1, 2]), "new_tensor"),
        (lambda x: torch.tensor([1, 2], device=x.device), "tensor"),
        (lambda x: torch.as_tensor([1, 2], device=x.device), "as_tensor"),
        (lambda x: x[[0, 2]], "indexing with a list"),
        (lambda x: x.view(2, 2)[:, [0]], "indexing with a list"),
        (lambda x: x.__setitem__([0, 2], 1), "indexing with a list"),
    ],
)
def test_a_reading_is_noticed_with_its_place(read, name):
    values = torch.arange(4)
    with Synchronisations() as seen:
        read(values)
    assert len(seen.found) == 1
    assert seen.found[0].startswith(f"{name} at test_synchronisation.py:")


def test_only_what_comes_of_the_given_tensors_counts():
    device, host = torch.arange(4), torch.arange(4)
    with Synchronisations(of=[device]) as seen:
        host.tolist()
        (host + 1).tolist()
    assert seen.found == []
    with Synchronisations(of=[device]) as seen:
        (device + host).tolist()
    assert len(seen.found) == 1


def test_nothing_is_watched_afterwards():
    with Synchronisations() as seen:
        pass
    torch.arange(4).tolist()
    assert seen.found == []
