"""The pocket world: a small language world with tasks, checkers, tokenizer and model sizes, without torch."""

from dormant.pocket.sizes import SIZES, Size
from dormant.pocket.world import PocketWorld

__all__ = ["SIZES", "PocketWorld", "Size"]
