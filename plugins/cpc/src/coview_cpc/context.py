"""Autoregressive context networks: the output for row r of a grid depends only on rows up to r."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn
from torch.nn.functional import pad, relu


class MaskedConvolutions(nn.Module):
    """Residual units of causal convolutions (Hénaff et al. 2019, appendix; PixelCNN's kind).

    A unit is 1 x 1 to ``hidden``, 1 x 3 along the row, 2 x 1 over the row and the
    one above, 1 x 1 back. It sees the patches of its own row in all columns within
    reach, and nothing of the rows below.

    Args:
        inputs: width D of input and output.
        hidden: width inside a unit.
        layers: number of units.
    """

    def __init__(self, inputs: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.units = nn.ModuleList(_Unit(inputs, hidden) for _ in range(layers))
        self.width = inputs

    def forward(self, grid: Tensor) -> Tensor:
        """(B, D, rows, columns) -> (B, D, rows, columns)."""
        for unit in self.units:
            grid = grid + unit(grid)
        return relu(grid)


class _Unit(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(width, hidden, 1)
        self.along = nn.Conv2d(hidden, hidden, (1, 3), padding=(0, 1))
        self.down = nn.Conv2d(hidden, hidden, (2, 1))
        self.expand = nn.Conv2d(hidden, width, 1)

    def forward(self, grid: Tensor) -> Tensor:
        hidden = self.along(relu(self.reduce(grid)))
        # A row of zeros on top, as the first row has none above it.
        hidden = self.down(pad(hidden, (0, 0, 1, 0)))
        output: Tensor = self.expand(relu(hidden))
        return output


class Recurrent(nn.Module):
    """A recurrent network down every column (van den Oord et al. 2018, section 3).

    In a grid with several columns, a 1 x 3 convolution first lets a patch see its
    neighbours in the row, as in a row-wise PixelRNN. A signal is a grid of one
    column.

    Args:
        cell: ``nn.GRU`` or ``nn.LSTM``.
        inputs: width D of the input.
        hidden: width of the state, which is the output.
        layers: number of recurrent layers.
        columns: number of columns of the grid.
    """

    def __init__(
        self,
        cell: Callable[..., nn.RNNBase],
        inputs: int,
        hidden: int,
        layers: int,
        columns: int,
    ) -> None:
        super().__init__()
        self.along: nn.Module = nn.Identity()
        if columns > 1:
            self.along = nn.Conv2d(inputs, inputs, (1, 3), padding=(0, 1))
        self.cell = cell(inputs, hidden, layers, batch_first=True)
        self.width = hidden

    def forward(self, grid: Tensor) -> Tensor:
        """(B, D, rows, columns) -> (B, hidden, rows, columns)."""
        batch, columns = len(grid), grid.shape[3]
        sequences = self.along(grid).permute(0, 3, 2, 1).flatten(0, 1)
        states, _ = self.cell(sequences)
        by_column: Tensor = states.reshape(batch, columns, *states.shape[1:])
        return by_column.permute(0, 3, 2, 1)


Context = MaskedConvolutions | Recurrent
CONTEXTS: Mapping[str, Callable[[int, int, int, int], Context]] = {
    "masked-conv": lambda inputs, hidden, layers, _: MaskedConvolutions(inputs, hidden, layers),
    "gru": lambda *sizes: Recurrent(nn.GRU, *sizes),
    "lstm": lambda *sizes: Recurrent(nn.LSTM, *sizes),
}
"""Makers of context networks, by name: (inputs, hidden, layers, columns) -> module."""
