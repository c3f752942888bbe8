"""What ships with the package: the tokenizer and the pretrained bases, in Hugging Face's formats."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).with_name("bases")

TOKENIZER = Path(__file__).with_name("tokenizer")
"""Where the trained tokenizer ships; load it with ``transformers.AutoTokenizer.from_pretrained``."""


def shipped_bases() -> dict[str, Path]:
    """The directory of each shipped base by its name."""
    return {path.name: path for path in sorted(FOLDER.iterdir()) if (path / "config.json").is_file()}
