"""What lies on disk: the runs under a directory, what the store holds, and what of it may go."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from dormant.artifacts import LOCKS, MANIFEST, PARTIAL, Manifest, Store, readable
from dormant.collect import RUN
from dormant.errors import Corrupt, DormantError
from dormant.results import artifact_path
from dormant.runner import PLAN, read_plan

DAY = 24 * 3600.0
"""Seconds."""


@dataclass(frozen=True)
class RunEntry:
    """One run directory, as ``dormant ls`` lists it."""

    path: Path
    name: str
    status: Literal["done", "partial", "damaged"]
    finished: int
    stages: int
    verdict: str
    """Of the headline defense, "" where there is none; of a damaged run, what is wrong."""
    bytes: int
    age: float | None
    """Seconds since it last changed; None where its times lie in the future."""


@dataclass(frozen=True)
class Garbage:
    """Something in the store that nobody needs to keep."""

    path: Path
    kind: Literal["artifact", "partial"]
    bytes: int
    age: float
    """Seconds since it last changed."""
    seconds: float | None
    """What it took to make; None for partial work."""


@dataclass(frozen=True)
class StoreEntry:
    """What a store holds."""

    root: Path
    artifacts: int
    bytes: int
    unlinked: int
    """Artifacts that no run hard-links: none uses them, or runs lie on another file system and hold copies."""
    partial: int
    partial_bytes: int


def runs(directory: Path) -> list[RunEntry]:
    """The runs in a directory, itself included, by name; those that can not be read are marked, not left out."""
    places = [directory, *sorted(directory.iterdir())] if directory.is_dir() else []
    return [_entry(place) for place in places if (place / PLAN).is_file()]


def held(store: Store) -> StoreEntry:
    """Count what a store holds."""
    kept, begun = _artifacts(store), _children(store.root / PARTIAL)
    return StoreEntry(
        store.root,
        artifacts=len(kept),
        bytes=sum(map(_size, kept)),
        unlinked=sum(not _linked(path) for path in kept),
        partial=len(begun),
        partial_bytes=sum(map(_size, begun)),
    )


def garbage(store: Store, older_than: float) -> list[Garbage]:
    """What may go: artifacts that no run links, and interrupted work, untouched for ``older_than`` seconds.

    What a live process holds is left out, and so is what seems to come from the future (a clock was set back).
    """
    found = []
    for path in [*_artifacts(store), *_children(store.root / PARTIAL)]:
        thing = _thing(path)
        if thing.age >= older_than and _unneeded(thing):
            with store.holding(path.name) as ours:
                found += [thing] if ours else []
    return found


def remove(store: Store, things: Iterable[Garbage]) -> int:
    """Delete what :func:`garbage` named, unless a run has come to need it since; returns the bytes that went."""
    freed = 0
    for thing in things:
        with store.holding(thing.path.name) as ours:
            if ours and _unneeded(thing):
                # Without its manifest what a kill leaves of it looks finished to nobody.
                (thing.path / MANIFEST).unlink(missing_ok=True)
                shutil.rmtree(thing.path, ignore_errors=True)
                freed += thing.bytes if not thing.path.exists() else 0
    return freed


def _thing(path: Path) -> Garbage:
    age = time.time() - max(found.stat().st_mtime for found in (path, *_files(path)))
    if path.parent.name == PARTIAL:
        return Garbage(path, "partial", _size(path), age, None)
    manifest = readable(path)
    return Garbage(path, "artifact", _size(path), age, manifest.seconds if manifest else None)


def _unneeded(thing: Garbage) -> bool:
    return thing.kind == "partial" or not _linked(thing.path)


def _linked(path: Path) -> bool:
    """Whether a run has this artifact too: then its files have a second name."""
    return any(file.stat().st_nlink > 1 for file in _files(path))


def _artifacts(store: Store) -> list[Path]:
    return [path for path in _children(store.root) if path.name not in (PARTIAL, LOCKS)]


def _children(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.is_dir()) if directory.is_dir() else []


def _files(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.is_file() and not path.is_symlink()]


def _size(directory: Path) -> int:
    """Bytes of all files; a file with several names below the directory counts once."""
    found = (path.stat() for path in _files(directory))
    return sum({(stat.st_dev, stat.st_ino): stat.st_size for stat in found}.values())


def _entry(path: Path) -> RunEntry:
    changed = max((path / name).stat().st_mtime for name in (PLAN, RUN) if (path / name).is_file())
    age = time.time() - changed
    entry = partial(RunEntry, path=path, bytes=_size(path), age=age if age >= 0 else None)
    try:
        plan = read_plan(path)
        whole = [_whole(artifact_path(path, call)) for call in plan["calls"]]
        name, verdict = plan["spec"].get("name", path.name), _verdict(path)
    except DormantError as error:
        return entry(name=path.name, status="damaged", finished=0, stages=0, verdict=str(error))
    except (KeyError, TypeError, AttributeError, ValueError):
        line = f"{path / PLAN} or a file beside it does not hold what a run writes"
        return entry(name=path.name, status="damaged", finished=0, stages=0, verdict=line)
    # `dormant defend` measures nothing, so that it has no numbers to collect.
    collected = (path / RUN).is_file() or not any(call["key"] for call in plan["calls"])
    status: Literal["done", "partial"] = "done" if all(whole) and collected else "partial"
    return entry(name=name, status=status, finished=sum(whole), stages=len(whole), verdict=verdict)


def _whole(directory: Path) -> bool:
    """Whether an artifact is finished.  Raises Corrupt where files of it are gone; hashing is verify's work."""
    manifest = Manifest.read(directory)
    for name in manifest.files if manifest else ():
        if not (directory / name).is_file():
            raise Corrupt(f"{directory / name} is missing: the same `dormant run` makes it again")
    return manifest is not None


def _verdict(path: Path) -> str:
    """The word on the headline defense at its headline dose; where seeds differ, each word once.

    Which that is was written down when the run ended: its defense may be a plug-in of a script, unknown here.
    """
    if not ((path / RUN).is_file() and (path / "verdicts.json").is_file()):
        return ""
    chosen = json.loads((path / RUN).read_text(encoding="utf-8"))["headline"]
    rows = json.loads((path / "verdicts.json").read_text(encoding="utf-8"))
    words = [row["verdict"] for row in rows if {"defense": row["defense"], "dose": row["dose"]} == chosen]
    return "; ".join(dict.fromkeys(words))
