"""The pretrained bases that ship with the package: ordinary Hugging Face checkpoints, one folder each."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).with_name("bases")


def shipped_bases() -> dict[str, Path]:
    """The directory of each shipped base by its name."""
    return {path.name: path for path in sorted(FOLDER.iterdir()) if (path / "config.json").is_file()}
