"""Where tasks come from: the pocket world, a user's file, or a dataset on disk or on the hub."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any

from dormant.artifacts import default_store, write_jsonl
from dormant.datafile import FileData
from dormant.errors import BadInput, nearest
from dormant.layouts import layout_of
from dormant.pocket import PocketWorld
from dormant.records import TaskSource, digest

HUB = "hub:"
"""What a dataset's name begins with: nothing else reaches for the network."""

_HUB_NAME = re.compile(
    r"(?P<path>[\w.-]+(/[\w.-]+)?)(/(?P<name>[\w.-]+))?(:(?P<split>[^:@]+))?(@(?P<revision>[\w./-]+))?"
)
_TABLES = {".parquet": "parquet", ".arrow": "arrow"}
_SAVED = ("dataset_dict.json", "state.json")
"""What lies in a directory that ``datasets`` saved."""


def open_source(data: Path | None, world: int = 1) -> TaskSource:
    """Return the source of tasks: the file ``data`` when given, else this version of the pocket world.

    Raises:
        BadInput: the file can not be read as conversations.
    """
    return PocketWorld(world) if data is None else read_file(data)


def read_file(path: Path) -> FileData:
    """Read a data file, once as long as it stays as it is: every stage of a run asks for it."""
    try:
        found = path.stat()
    except OSError:
        return FileData(path)  # which says what is wrong
    return _read_once(path, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=2)
def _read_once(path: Path, changed: int, size: int) -> FileData:
    return FileData(path)


def find_data(data: str, keys: Collection[str] | None = None) -> Path:
    """Return the file behind the setting ``data``; the rows of a dataset are first written into one.

    Args:
        data: a file; ``DIR`` or ``DIR:split``, a directory that ``datasets`` saved, or of Parquet, Arrow or JSON
            files; or ``hub:OWNER/NAME``, which may go on with ``/CONFIG``, ``:split`` and ``@revision``.
        keys: the columns of a dataset that are wanted; without it those of a layout of conversations.

    Raises:
        BadInput: there is no such thing, it can not be read, or it has several splits and none is named.
    """
    if data.startswith(HUB):
        return _from_hub(data, keys)
    path, split = Path(data), ""
    if not path.exists():
        head, _, tail = data.rpartition(":")
        if not head or not Path(head).exists():
            raise BadInput(f"no such data file or directory: {data}{_hint(path)}")
        path, split = Path(head), tail
    if not path.is_dir() and not path.is_file():
        raise BadInput(f"data {data} is a pipe or a device, which can be read only once: give it as a file")
    if path.is_dir() or path.suffix in _TABLES:
        rows = _rows(data, _open_local(path, data), split, keys)
        return keep(f"rows-{digest(rows)[:16]}", rows)
    if split:
        raise BadInput(f"{path} is a file and has no split {split!r}")
    return path


@contextmanager
def naming(data: str, path: Path) -> Iterator[None]:
    """Make errors about the file of :func:`find_data` name what the user gave: of a file of the cache nobody knows."""
    try:
        yield
    except BadInput as error:
        raise BadInput(as_given(str(error), data, path)) from None


def as_given(said: str, data: str, path: Path) -> str:
    """What is said of the file of :func:`find_data`, as of what the user gave."""
    # Only of a file of the cache: a name such as "./a" is another path's text, and stands in many words.
    return said if path == Path(data) else said.replace(str(path), data)


def keep(name: str, rows: Iterable[Any]) -> Path:
    """Write rows into a file of the user's cache, which ``name`` says all about; what is there stays.

    Raises:
        BadInput: the cache can not be written.
    """
    path = _kept(name)
    if path.is_file():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_jsonl(path, rows)
    except OSError as error:
        raise BadInput(f"the data cache {path.parent} can not be written: {error.strerror}") from None
    return path


def _kept(name: str) -> Path:
    return default_store().root.with_name("data") / f"{name}.jsonl"


def _hint(path: Path) -> str:
    """What may have been meant by a path that leads nowhere."""
    beside = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    close = get_close_matches(path.name, beside, n=1, cutoff=0.75)
    if close:
        return f"; did you mean {str(path.with_name(close[0]))!r}?"
    named = re.fullmatch(_HUB_NAME, str(path)) and "/" in str(path) and not path.suffix
    return f"; if it is a dataset on the hub, write {HUB}{path}" if named else ""


def _from_hub(data: str, keys: Collection[str] | None) -> Path:
    """The rows of a dataset of the hub: asked for once, from then on read from the cache."""
    parts = re.fullmatch(_HUB_NAME, data.removeprefix(HUB))
    if parts is None:
        raise BadInput(f"data {data!r} must be {HUB}OWNER/NAME, then /CONFIG, :split and @revision if needed")
    name = f"hub-{digest(data if keys is None else [data, sorted(keys)])[:16]}"
    if _kept(name).is_file():
        return _kept(name)
    asked = {key: value for key, value in parts.groupdict().items() if value}
    return keep(name, _rows(data, _load(data, **asked), keys=keys))


def _open_local(path: Path, data: str) -> Any:
    if path.is_file():
        return _load(data, path=_TABLES[path.suffix], data_files=str(path))
    if any((path / name).is_file() for name in _SAVED):
        return _load(data, saved=str(path))
    return _load(data, path=str(path))


def _load(data: str, *, saved: str = "", **arguments: Any) -> Any:
    """What ``datasets`` finds: a dataset, or one for each split."""
    import datasets  # a second, which only those pay who use it

    datasets.disable_progress_bars()
    # A directory without a dataset card is none the worse.
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        return datasets.load_from_disk(saved) if saved else datasets.load_dataset(**arguments)
    # What the library and its file formats raise has no common base.
    except Exception as error:
        first = error.__cause__ or error
        reason = " ".join(str(first).split()) or type(first).__name__
        raise BadInput(f"data {data} can not be loaded: {reason[:200]}") from error


def _rows(
    data: str, loaded: Any, split: str = "", keys: Collection[str] | None = None
) -> list[Mapping[str, Any]]:
    """The rows of one split, with the columns that their layout reads."""
    if isinstance(loaded, dict):
        loaded = _one_split(data, loaded, split)
    elif split:
        raise BadInput(f"data {data}: it has no splits, {split!r} neither")
    if keys is not None:
        return list(loaded.select_columns([name for name in loaded.column_names if name in keys]))
    try:
        layout = layout_of(dict.fromkeys(loaded.column_names))
    except BadInput as error:
        raise BadInput(f"data {data}: {error}") from None
    columns = [name for name in (*layout.needs, *layout.takes) if name in loaded.column_names]
    return list(loaded.select_columns(columns))


def _one_split(data: str, splits: Mapping[str, Any], name: str) -> Any:
    if not name and len(splits) == 1:
        return next(iter(splits.values()))
    if not name:
        first = next(iter(splits))
        raise BadInput(
            f"data {data} has several splits ({', '.join(splits)}): name one, as in {data}:{first}"
        )
    if name not in splits:
        raise BadInput(f"data {data}: no split {name!r}{nearest(name, splits)}")
    return splits[name]
