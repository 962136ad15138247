"""A network of your own: how the days of the context become a forecast. See own_network.toml."""

import torch
from torch import Tensor, nn


class DayFilters(nn.Module):
    """A few filters of a day's length, and a linear map of what they find on each day.

    Shapes: x (N, context) → (N, horizon): the context in units of the client's own scale, and what
    is added to the profile of the day's type. Sizes are in steps, of an hour each here.
    """

    starts_at_zero = ("head",)  # so that the first forecast is the profile

    def __init__(self, context: int, horizon: int) -> None:
        super().__init__()
        self.filters = nn.Conv1d(1, 4, kernel_size=24, stride=24)
        self.head = nn.Linear(4 * (context // 24), horizon)

    def forward(self, x: Tensor) -> Tensor:
        """Return the correction to the profile."""
        found = torch.relu(self.filters(x.unsqueeze(1)))
        forecast: Tensor = self.head(found.flatten(1))
        return forecast
