"""Artifacts: finished directories that say how they were made, in a store that runs share.

An artifact's id is the hash of everything that decides its content, so an equal id means equal bytes and
the work is not done again.  ``manifest.json`` is written last: a directory without one was interrupted.
"""

from __future__ import annotations

import ast
import errno
import hashlib
import importlib.util
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout
from platformdirs import user_cache_path
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from dormant.errors import BadInput, Corrupt, DormantError
from dormant.records import canonical, digest

MANIFEST = "manifest.json"
RESUME = "resume"
"""Where a stage keeps what it needs to go on after a kill; never part of a finished artifact."""

PHASES = "phases.json"
"""Where a stage notes the seconds of its phases; they go into the manifest, and the file goes."""

PARTIAL, LOCKS = "partial", "locks"
"""Directories of a store beside its artifacts: work that is not finished, and a lock file for each id."""

LIBRARIES = ("torch", "transformers", "trl", "peft", "vllm")


@dataclass(frozen=True)
class Identity:
    """What decides an artifact's content."""

    stage: str
    source: str
    config: Mapping[str, Any]
    seed: int
    inputs: Mapping[str, str]

    @property
    def id(self) -> str:
        """The artifact's id, as 64 hex digits."""
        return digest([self.stage, self.source, self.config, self.seed, self.inputs])

    @property
    def directory(self) -> str:
        """The artifact's directory name, readable and short."""
        return f"{self.stage}-{self.id[:16]}"


class Manifest(BaseModel):
    """How an artifact was made, and the hash of every file in it."""

    model_config = ConfigDict(extra="forbid")

    id: str
    stage: str
    source: str
    config: dict[str, Any]
    seed: int
    inputs: dict[str, str]
    versions: dict[str, str]
    files: dict[str, str]
    dropped: list[str] = []
    """Directories of intermediate checkpoints that were deleted after they had been measured."""
    seconds: float = 0.0
    phases: dict[str, float] = {}
    """Seconds of the parts of its making, where a stage told them apart."""

    @staticmethod
    def read(directory: Path) -> Manifest | None:
        """Return the manifest, or None where the artifact was never finished."""
        try:
            return Manifest.model_validate_json((directory / MANIFEST).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (ValidationError, ValueError) as error:
            raise Corrupt(f"{directory / MANIFEST} is not a manifest: {error}".splitlines()[0]) from None

    def write(self, directory: Path) -> None:
        """Write the manifest atomically."""
        write_atomic(directory / MANIFEST, self.model_dump_json(indent=1) + "\n")

    def has(self, part: str) -> bool:
        """Whether ``part`` (a file, a directory or "") is still in the artifact."""
        return not any(part == gone or part.startswith(gone + "/") for gone in self.dropped)


class Store:
    """A directory of artifacts by id, with one lock per id, so that runs can share it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, identity: Identity) -> Path:
        """Where the artifact lies, finished or not."""
        return self.root / identity.directory

    def partial(self, identity: Identity) -> Path:
        """Where the artifact is worked on until it is finished."""
        return self.root / PARTIAL / identity.directory

    def build(
        self,
        identity: Identity,
        make: Callable[[Path], None],
        *,
        keep: Callable[[Manifest], bool],
        target: Path | None = None,
    ) -> Manifest:
        """Return the artifact's manifest, making the artifact if no usable one is there.

        Args:
            identity: what to build.
            make: fills the directory it is given; may find there what a killed attempt left.
            keep: says of a finished artifact whether it can be used as it is.
            target: where a run wants the artifact; linked before anybody else could delete it.

        Raises:
            BadInput: the store or ``target`` can not be written: the disk is full, or read-only.
        """
        with self._locked(identity), writing(self.root):
            manifest = readable(self.path(identity))
            if manifest is None or not keep(manifest):
                manifest = self._make(identity, make)
            if target is not None:
                with writing(target):
                    target.parent.mkdir(parents=True, exist_ok=True)
                    link(self.path(identity), target)
            return manifest

    def _make(self, identity: Identity, make: Callable[[Path], None]) -> Manifest:
        partial, final = self.partial(identity), self.path(identity)
        partial.mkdir(parents=True, exist_ok=True)
        started = time.perf_counter()
        make(partial)
        shutil.rmtree(partial / RESUME, ignore_errors=True)
        manifest = _describe(identity, partial, time.perf_counter() - started)
        if final.exists():
            shutil.rmtree(final)
        partial.rename(final)
        manifest.write(final)
        return manifest

    def drop(self, identity: Identity, parts: Iterable[str]) -> None:
        """Delete parts of a finished artifact (intermediate checkpoints) and note it in the manifest."""
        with self._locked(identity):
            drop(self.path(identity), parts)

    @contextmanager
    def holding(self, name: str) -> Iterator[bool]:
        """Hold an artifact by its directory's name; yields False where a live process holds it."""
        lock = self._lock(name)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    @contextmanager
    def _locked(self, identity: Identity) -> Iterator[None]:
        lock = self._lock(identity.directory)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"waiting: another run is making {identity.directory}", file=sys.stderr, flush=True)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _lock(self, name: str) -> BaseFileLock:
        # The operating system frees the lock of a process that died, so a stale file never blocks.
        lock = FileLock(self.root / LOCKS / f"{name}.lock")
        with writing(self.root):
            (self.root / LOCKS).mkdir(parents=True, exist_ok=True)
            (self.root / LOCKS / f"{name}.lock").touch()
        return lock


@contextmanager
def writing(place: Path) -> Iterator[None]:
    """Turn what a full or read-only disk makes of a write into one line; other errors pass as they are.

    Libraries that write weights wrap the system's error in one of their own, so its number is read from
    the message.

    Raises:
        BadInput: ``place`` can not be written.
    """
    try:
        yield
    except DormantError:
        raise
    except Exception as error:
        why = _unwritable(error)
        if why is None:
            raise
        # The file that is named may be one that can not be read.
        where = getattr(error, "filename", None) or place
        raise BadInput(
            f"{where} can not be written: {why}; what is finished is kept, and the same command goes on"
        ) from error


def _unwritable(error: Exception) -> str | None:
    """What the system says of a place that can not be written; None for every other error."""
    number = re.search(r"(?:Errno|os error) (\d+)", str(error))
    if number and int(number[1]) in UNWRITABLE:
        return os.strerror(int(number[1]))
    # torch tells where in its own source a write failed, not why.
    return "a write failed (is the disk full?)" if "inline_container" in str(error) else None


UNWRITABLE = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ENOTDIR,
}  # fmt: skip
"""Numbers of the system's errors that say that a place can not be written."""


def default_store() -> Store:
    """The store in the user's cache; ``DORMANT_CACHE`` moves it."""
    root = os.environ.get("DORMANT_CACHE")
    return Store((Path(root) if root else user_cache_path("dormant")) / "store")


def readable(directory: Path) -> Manifest | None:
    """Return the manifest, or None where there is none that can be read: then the artifact is made again."""
    try:
        return Manifest.read(directory)
    except Corrupt:
        return None


def drop(directory: Path, parts: Iterable[str]) -> None:
    """Delete parts of an artifact directory and note it in its manifest."""
    manifest = Manifest.read(directory)
    if manifest is None:
        return
    gone = sorted({*manifest.dropped, *parts})
    manifest.dropped = gone
    manifest.files = {name: sha for name, sha in manifest.files.items() if manifest.has(name)}
    # Hard links share bytes, so the manifest is replaced by a new file, never rewritten in place.
    manifest.write(directory)
    for part in gone:
        shutil.rmtree(directory / part, ignore_errors=True)


def link(source: Path, target: Path) -> None:
    """Make ``target`` a copy of the artifact ``source``, hard-linked where the file system allows."""
    staging = target.with_name(f".{target.name}.linking")
    shutil.rmtree(staging, ignore_errors=True)
    shutil.copytree(source, staging, copy_function=_link_or_copy)
    if target.exists():
        shutil.rmtree(target)
    staging.rename(target)


def check(directory: Path) -> list[str]:
    """Return one line for each file of an artifact that differs from its manifest (none when all is well)."""
    manifest = Manifest.read(directory)
    if manifest is None:
        return [f"{directory.name}: no {MANIFEST}, so it was never finished"]
    found = {name for name in _files(directory) if name != MANIFEST}
    problems = [
        f"{directory.name}/{name}: not in the manifest" for name in sorted(found - set(manifest.files))
    ]
    for name, sha in manifest.files.items():
        if name not in found:
            problems.append(f"{directory.name}/{name}: missing")
        elif hash_file(directory / name) != sha:
            problems.append(f"{directory.name}/{name}: its bytes differ from the manifest's hash")
    return problems


def external_id(path: Path) -> str:
    """The id of an input from outside: the hash of its bytes (all files of a directory, or one file).

    Raises:
        BadInput: it is neither a file nor a directory, so that its bytes can not be read twice.
    """
    if path.is_file():
        return hash_file(path)
    if not path.is_dir():
        raise BadInput(f"{path} is neither a file nor a directory")
    return digest(hashes(path))


def hashes(directory: Path) -> dict[str, str]:
    """The hash of every file below a directory, by relative path; none where there is no directory."""
    return {name: hash_file(directory / name) for name in _files(directory)}


def hash_file(path: Path) -> str:
    """SHA-256 of a file, as hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_atomic(path: Path, text: str) -> None:
    """Write a text file so that it is either the old one or whole."""
    temporary = path.with_name(f".{path.name}.writing")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Write one canonical JSON value a line, atomically."""
    write_atomic(path, "".join(canonical(row) + "\n" for row in rows))


def read_jsonl(path: Path) -> Iterator[Any]:
    """Yield the values of a JSONL file that this package wrote."""
    with path.open("rb") as lines:
        for line in lines:
            yield from_json(line)


def versions() -> dict[str, str]:
    """The versions of the libraries that decide numbers."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@cache
def source_hash(*modules: str) -> str:
    """Hash the source of modules together with every module of this package that they import.

    What a package keeps in ``rules`` beside its modules is part of its source: it decides as they do.
    """
    sources: dict[str, str] = {}
    todo = list(modules)
    while todo:
        name = todo.pop()
        path = _module_path(name, named=name in modules)
        if name in sources or path is None:
            continue
        text = path.read_text(encoding="utf-8")
        sources[name] = hashlib.sha256(text.encode()).hexdigest()
        if path.name == "__init__.py":
            sources |= {
                f"{name}/{rules.name}": hash_file(rules) for rules in path.parent.glob("rules/*.yaml")
            }
        todo += _imports(ast.parse(text))
    return digest(sources)


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _module_path(name: str, *, named: bool) -> Path | None:
    """The file of one of our modules; of an outside module (a plug-in) only when it was named."""
    package = Path(__file__).parent
    top, *rest = name.split(".")
    if top != package.name:
        return _outside_path(name) if named else None
    if not rest:
        return None  # The package's own file imports, for types, what imports all: any change would change each hash.
    stem = package.joinpath(*rest)
    candidates = (stem / "__init__.py", stem.with_suffix(".py"))
    return next((path for path in candidates if path.is_file()), None)


def _outside_path(name: str) -> Path:
    """The file of a plug-in's own module, which may be the script that is running."""
    module = sys.modules.get(name)
    spec = importlib.util.find_spec(name) if module is None else None
    origin = spec.origin if spec else getattr(module, "__file__", None)
    if origin is None:
        # Without its source an edited plug-in would pass for the old one, and old artifacts for new.
        raise BadInput(f"the plug-in in {name} has no source file to identify it by: save it as a module")
    return Path(origin)


def _describe(identity: Identity, directory: Path, seconds: float) -> Manifest:
    phases = _taken_phases(directory)
    return Manifest(
        id=identity.id,
        stage=identity.stage,
        source=identity.source,
        config=dict(identity.config),
        seed=identity.seed,
        inputs=dict(identity.inputs),
        versions=versions(),
        files=hashes(directory),
        seconds=round(seconds, 2),
        phases=phases,
    )


def _taken_phases(directory: Path) -> dict[str, float]:
    """Seconds that a stage noted by phase; its file goes, since artifacts hold no times."""
    noted = directory / PHASES
    if not noted.is_file():
        return {}
    seconds: dict[str, float] = json.loads(noted.read_text(encoding="utf-8"))
    noted.unlink()
    return {name: round(value, 2) for name, value in seconds.items()}


def _files(directory: Path) -> list[str]:
    return sorted(p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file())


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
