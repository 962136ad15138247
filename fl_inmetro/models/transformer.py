"""PatchTST: a Transformer encoder over patches of the context."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fl_inmetro.models.layers import Positions, by_step


class PatchTst(nn.Module):
    """Patches of the context, embedded, encoded, flattened, mapped to the horizon.

    The load of a client is one channel; channel-independent, as in the paper, means that each
    channel is forecast alone with shared weights, which here is every client's case. The paper's
    normalisation by the window's own mean is left to the design, which scales the context.

    Shapes: x (N, L) → (N, H), or (N, H, R); L must give as many patches as `context` does. The
    head starts at zero.
    Source: Nie, Nguyen, Sinthong & Kalagnanam (2023), "A Time Series is Worth 64 Words", ICLR,
    section 3.1.
    """

    starts_at_zero = ("head",)

    def __init__(
        self,
        context: int,
        horizon: int,
        *,
        patch: int,
        stride: int,
        width: int,
        heads: int,
        layers: int,
        feed_forward: int,
        outputs: int = 1,
    ) -> None:
        super().__init__()
        self.patch, self.stride, self.outputs = patch, stride, outputs
        patches = patch_count(context, patch, stride)
        self.embedding = nn.Linear(patch, width)
        self.positions = Positions(patches, width)
        self.blocks = nn.Sequential(
            *(EncoderBlock(width, heads, feed_forward) for _ in range(layers))
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(patches * width, horizon * outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return the correction to the base profile."""
        tokens = self.positions(self.embedding(patches_of(x, self.patch, self.stride)))
        encoded: Tensor = self.norm(self.blocks(tokens))
        return by_step(self.head(encoded.flatten(1)), self.outputs)


class EncoderBlock(nn.Module):
    """Self-attention and a position-wise perceptron, each added to what it was given.

    LayerNorm stands before each of the two (Xiong et al. 2020, "On Layer Normalization in the
    Transformer Architecture", ICML), where the paper has BatchNorm behind: BatchNorm mixes the
    samples of a batch and keeps statistics of a client's data, and the pre-norm form needs no
    warm-up, which a client that starts its optimiser afresh in every round could not give it.

    Shapes: x (N, S, d) → (N, S, d).
    """

    def __init__(self, width: int, heads: int, feed_forward: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = SelfAttention(width, heads)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = nn.Sequential(
            nn.Linear(width, feed_forward), nn.GELU(), nn.Linear(feed_forward, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the encoded sequence."""
        x = x + self.attention(self.attention_norm(x))
        result: Tensor = x + self.feed_forward(self.feed_forward_norm(x))
        return result


class SelfAttention(nn.Module):
    """Scaled dot-product attention of a sequence with itself, in several heads.

    Written as matmul and softmax, so that clients can be batched in front of it. Shapes:
    x (N, S, d) → (N, S, d). Source: Vaswani et al. (2017), "Attention Is All You Need", eq. 1.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}")
        self.heads = heads
        self.query = nn.Linear(width, width)
        # Without bias: softmax takes no notice of one, so Adam would train it on rounding errors.
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Return the attended sequence."""
        query, key, value = (self._split(layer(x)) for layer in (self.query, self.key, self.value))
        score = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
        mixed = torch.softmax(score, dim=-1) @ value
        result: Tensor = self.output(mixed.transpose(1, 2).flatten(2))
        return result

    def _split(self, x: Tensor) -> Tensor:
        """(N, S, d) → (N, heads, S, d / heads)."""
        apart: Tensor = x.unflatten(-1, (self.heads, -1))
        return apart.transpose(1, 2)


def patch_count(context: int, patch: int, stride: int) -> int:
    """Return ⌊(L − P)/S⌋ + 2, the number of patches of a context (Nie et al. 2023, section 3.1)."""
    if patch > context:
        raise ValueError(f"a patch of {patch} steps is longer than the context of {context}")
    return (context - patch) // stride + 2


def patches_of(x: Tensor, patch: int, stride: int) -> Tensor:
    """Cut the context into patches, after its last value was repeated `stride` times at its end.

    Shapes: (N, L) → (N, patches, patch).
    """
    padding = x[:, -1:].expand(-1, stride)
    return torch.cat([x, padding], dim=1).unfold(1, patch, stride)
