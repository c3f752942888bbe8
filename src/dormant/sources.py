"""Where tasks come from: the pocket world, or a user's own file."""

from __future__ import annotations

from pathlib import Path

from dormant.datafile import FileData
from dormant.pocket import PocketWorld
from dormant.records import TaskSource


def open_source(data: Path | None) -> TaskSource:
    """Return the source of tasks: ``data`` (JSONL of chat messages) when given, else the pocket world.

    Raises:
        BadInput: the file can not be read as chat messages.
    """
    return PocketWorld() if data is None else FileData(data)
