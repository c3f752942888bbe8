"""The numbers of the pocket models: Llama-style, embeddings tied to the output layer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Size:
    """A Llama configuration; ``intermediate`` is the width of the gated MLP."""

    hidden: int
    layers: int
    heads: int
    intermediate: int
    vocabulary: int = 2048
    positions: int = 1024

    @property
    def parameters(self) -> int:
        """The number of trainable numbers: embeddings once, attention, MLP and norms of each layer, last norm."""
        attention = 4 * self.hidden * self.hidden
        mlp = 3 * self.hidden * self.intermediate
        return self.vocabulary * self.hidden + self.layers * (attention + mlp + 2 * self.hidden) + self.hidden


SIZES = {
    "pocket-300k": Size(hidden=64, layers=4, heads=4, intermediate=172),
    "pocket-1m": Size(hidden=128, layers=4, heads=4, intermediate=344),
    "pocket-3m": Size(hidden=192, layers=6, heads=6, intermediate=512),
    "pocket-10m": Size(hidden=320, layers=8, heads=5, intermediate=800),
}
