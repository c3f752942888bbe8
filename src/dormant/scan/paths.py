"""``dormant scan``: files and directories in, a row for each file out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dormant.errors import BadInput, nearest
from dormant.scan import ScanVerdict, check, scan
from dormant.scan.table import CWES


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
    files = list(dict.fromkeys(file for path in paths for file in _files(path)))
    texts = {file: text for file in files if (text := _text(file)) is not None}
    verdicts = dict(zip(texts, scan(list(texts.values()), cwes), strict=True))
    return [Scanned(file, verdicts.get(file, ScanVerdict(reason="not UTF-8 text"))) for file in files]


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        beside = [str(path.parent / other.name) for other in path.parent.glob("*")]
        hint = nearest(str(path), beside) if 0 < len(beside) < 200 else ""
        raise BadInput(f"no such file or directory: {path}{hint if 'mean' in hint else ''}")
    found = sorted(file for file in path.rglob("*.py") if file.is_file())
    if not found:
        raise BadInput(f"{path} has no Python file (*.py)")
    return found


def _text(file: Path) -> str | None:
    """The file's text, or None where it is not UTF-8."""
    try:
        return file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        return None
