"""``dormant scan``: files and directories in, a row for each file out."""

from __future__ import annotations

import codecs
import io
import os
import stat
import tokenize
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dormant.errors import BadInput, nearest
from dormant.scan import LONGEST, ScanVerdict, check, scan
from dormant.scan.table import CWES

LARGEST = 4 * LONGEST + 3
"""Bytes of the longest text that is scanned, in UTF-8 and with its mark."""

_SLOW = ("punycode", "idna")
"""Encodings of names, which take minutes for a text."""

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a directory",
}


@dataclass(frozen=True)
class Scanned:
    """A file and what the scanners say of it."""

    path: Path
    verdict: ScanVerdict

    def row(self) -> dict[str, Any]:
        """The file as a row of the JSON list."""
        found = [
            {"cwe": f.cwe, "rule": f.rule, "scanner": f.scanner, "line": f.line}
            for f in self.verdict.findings
        ]
        said = {"verdict": self.verdict.verdict, "cwes": self.verdict.cwes, "findings": found}
        return {"path": str(self.path), **said, "reason": self.verdict.reason}

    def lines(self) -> Iterator[str]:
        """The file as lines of text: one for each finding, one for what could not be judged."""
        for f in self.verdict.findings:
            yield f"{self.path}:{f.line}: CWE-{f.cwe} {CWES[f.cwe]} ({f.scanner} {f.rule})"
        if self.verdict.reason:
            yield f"{self.path}: {'partly ' if self.verdict.findings else ''}unscored: {self.verdict.reason}"


def parse_cwes(given: str) -> list[int]:
    """The CWEs of ``"89,79"`` or ``"CWE-89"``.  Raises BadInput for one that is not of the eight."""
    names = {str(cwe): cwe for cwe in CWES}
    asked = [part.strip().upper().removeprefix("CWE-").lstrip("0") for part in given.split(",")]
    for name in asked:
        if name not in names:
            raise BadInput(f"--cwe {given!r}: {name!r} is not one of the CWEs {', '.join(names)}")
    return sorted({names[name] for name in asked})


def scan_paths(paths: Sequence[Path], cwes: Collection[int]) -> list[Scanned]:
    """Scan files, and the ``*.py`` files of directories at any depth.

    Raises:
        BadInput: a path that is not there, a directory without Python files, unknown CWEs, no scanners.
    """
    check(cwes)
    found = {file: unread for path in paths for file, unread in _files(path).items()}
    texts: dict[Path, str] = {}
    for file, unread in found.items():
        if not unread:
            try:
                texts[file] = _text(file)
            except BadInput as error:
                found[file] = str(error)
    verdicts = dict(zip(texts, scan(list(texts.values()), cwes), strict=True))
    return [Scanned(file, verdicts.get(file, ScanVerdict(reason=unread))) for file, unread in found.items()]


def _files(path: Path) -> dict[Path, str]:
    """The file, or those of a directory; and why something there can not be read, where that is known already."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise BadInput(_missing(path, error)) from None
    if stat.S_ISDIR(mode):
        found = dict(sorted(_walk(path)))
        if not found:
            raise BadInput(f"{path} has no Python file (*.py)")
        return found
    if not stat.S_ISREG(mode):
        raise BadInput(f"{path} is {_KINDS[stat.S_IFMT(mode)]}, which is not scanned: write it into a file")
    return {path: ""}


def _missing(path: Path, error: OSError) -> str:
    """What is wrong with a path that leads nowhere."""
    if os.path.islink(path):
        return f"{path} is a link to {path.readlink()}, which can not be reached: {error.strerror}"
    if not isinstance(error, (FileNotFoundError, NotADirectoryError)):
        return f"{path} can not be read: {error.strerror}"
    beside = [str(path.parent / other.name) for other in path.parent.glob("*")]
    hint = nearest(str(path), beside) if 0 < len(beside) < 200 else ""
    return f"no such file or directory: {path}{hint if 'mean' in hint else ''}"


def _walk(top: Path) -> Iterator[tuple[Path, str]]:
    """Every Python file at any depth, and the directories that can not be listed; links to some are not followed."""
    waiting = [str(top)]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                found = list(entries)
        except OSError as error:
            yield Path(folder), f"can not be listed: {error.strerror}"
            continue
        waiting += [entry.path for entry in found if entry.is_dir(follow_symlinks=False)]
        for entry in found:
            if entry.name.endswith(".py") and not os.path.isdir(entry.path):
                yield Path(entry.path), ""


def _text(file: Path) -> str:
    """A file's text in the encoding that it declares.  Raises BadInput, which says why, where there is none."""
    content = _content(file)
    try:
        encoding = tokenize.detect_encoding(io.BytesIO(content).readline)[0]
        if codecs.lookup(encoding).name in _SLOW:
            raise SyntaxError(f"unknown encoding: {encoding}")
        return content.decode(encoding)
    except SyntaxError as error:
        raise BadInput(str(error) if "unknown" in str(error) else "not UTF-8 text") from None
    except (LookupError, UnicodeError):
        raise BadInput(f"not {encoding.upper().removesuffix('-SIG')} text") from None


def _content(file: Path) -> bytes:
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BadInput(f"it is {_KINDS[stat.S_IFMT(status.st_mode)]}")
        if status.st_size > LARGEST:
            raise BadInput(f"too long: {status.st_size} bytes, at most {LONGEST} characters")
        with file.open("rb") as opened:
            return opened.read(LARGEST + 1)
    except OSError as error:
        raise BadInput(f"can not be read: {error.strerror}") from None
