"""Whether Python code shows a weakness: read by scanners, never run.

Bandit and Semgrep (with this package's own rules) are the default set, the extra ``scan``; CodeQL joins them where it
is installed.  A text is vulnerable by a CWE if one of them says so, and free of findings only if all of them looked.
"""

from __future__ import annotations

import ast
import re
import tempfile
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, Protocol

from dormant.errors import BadInput
from dormant.records import digest
from dormant.scan import child, with_bandit, with_codeql, with_semgrep
from dormant.scan.cache import Cache
from dormant.scan.findings import Finding, Looked
from dormant.scan.table import CWES, RULES

INSTALL = 'pip install "dormant[scan]"'
LONGEST = 100_000
"""Characters of a text; longer ones are not scanned."""

SECONDS = 600.0
"""How long one call of a scanner may take."""

_COOKIE = re.compile(r"((?:^|\r)[ \t\f]*#[^\r\n]*?coding)[:=]", re.MULTILINE)
"""What declares an encoding in one of the first lines; further down it is a comment like others."""

Answer = Literal["vulnerable", "not_found", "unscored"]


class Scanner(Protocol):
    """What each scanner's module offers."""

    def identity(self) -> str:
        """What decides its findings: version, rules."""
        ...

    def look(self, folder: Path, seconds: float) -> Looked:
        """Scan every file of a folder."""
        ...


@dataclass(frozen=True, slots=True)
class ScanVerdict:
    """What the scanners say of one text: findings of the CWEs asked about, in the order of lines.

    ``reason`` says why some scanner could not judge the text, or is "".
    """

    findings: tuple[Finding, ...] = ()
    reason: str = ""

    @property
    def cwes(self) -> list[int]:
        """The CWEs that were found."""
        return sorted({finding.cwe for finding in self.findings})

    @property
    def verdict(self) -> Answer:
        """The answer about all CWEs together."""
        return _answer(bool(self.findings), self.reason)

    def of(self, cwe: int) -> Answer:
        """The answer about one CWE.  Only for one that was asked about."""
        return _answer(cwe in self.cwes, self.reason)


def scan(
    sources: Sequence[str], cwes: Collection[int] = tuple(CWES), *, seconds: float = SECONDS
) -> list[ScanVerdict]:
    """Judge Python texts, each whole: with the imports that it uses.

    Equal texts are scanned once, and what was said of a text is kept in the user's cache.

    Args:
        sources: the texts.
        cwes: the weaknesses asked about, of ``CWES``; others are not reported.
        seconds: how long one call of a scanner may take; what it then did not judge is unscored.

    Raises:
        BadInput: an unknown CWE, or the scanners are not installed.
    """
    check(cwes)
    reasons = {text: _unreadable(text) for text in set(sources)}
    whole = sorted(text for text, reason in reasons.items() if not reason)
    verdicts = {text: ScanVerdict(reason=reason) for text, reason in reasons.items()}
    verdicts |= _scan(whole, seconds)
    return [_about(verdicts[text], cwes) for text in sources]


def check(cwes: Collection[int]) -> None:
    """Raise BadInput for an unknown CWE, and where the scanners are not installed."""
    unknown = sorted(set(cwes) - CWES.keys())
    if unknown or not cwes:
        valid = ", ".join(map(str, CWES))
        raise BadInput(f"CWE {unknown[0] if unknown else 'list is empty'}: not one of {valid}")
    if find_spec("bandit") is None or find_spec("semgrep") is None or child.program("semgrep") is None:
        raise BadInput(f"the scanners bandit and semgrep are not installed: {INSTALL}")


def _unreadable(text: str) -> str:
    """Why a text can not be scanned, or ""."""
    if len(text) > LONGEST:
        return f"too long: {len(text)} characters, at most {LONGEST}"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Odd escapes in somebody's string are no concern of ours.
            body = ast.parse(text).body
    except SyntaxError as error:
        return f"unparseable, line {error.lineno}: {error.msg}"
    except (ValueError, RecursionError, MemoryError) as error:
        return f"unparseable: {type(error).__name__}"
    return "" if body else "empty: no statement"


def _scan(texts: Sequence[str], seconds: float) -> dict[str, ScanVerdict]:
    """Every finding of the table in texts that parse; from the cache where all scanners had judged."""
    if not texts:
        return {}
    scanners: list[Scanner] = [with_bandit, with_semgrep, *([with_codeql] if with_codeql.here() else [])]
    told = digest([[scanner.identity() for scanner in scanners], repr(RULES)])
    keys = {text: digest([told, text]) for text in texts}
    cache = Cache()
    known = cache.read(keys.values())
    verdicts = {text: ScanVerdict(known[key]) for text, key in keys.items() if key in known}
    fresh = {}
    if new := [text for text in texts if text not in verdicts]:
        fresh = dict(zip(new, _look(new, scanners, seconds), strict=True))
        cache.write({keys[text]: found.findings for text, found in fresh.items() if not found.reason})
    return verdicts | fresh


def _look(texts: Sequence[str], scanners: Sequence[Scanner], seconds: float) -> list[ScanVerdict]:
    """Write the texts into a folder and show it to every scanner."""
    with tempfile.TemporaryDirectory(prefix="dormant-scan-") as place:
        folder = Path(place).resolve()
        names = [f"s{number:06d}.py" for number in range(len(texts))]
        for name, text in zip(names, texts, strict=True):
            (folder / name).write_bytes(_undeclared(text).encode("utf-8"))
        looked = [scanner.look(folder, seconds) for scanner in scanners]
    return [
        ScanVerdict(
            tuple(sorted(set().union(*(said.findings.get(name, ()) for said in looked)))),
            "; ".join(said.failed[name] for said in looked if name in said.failed),
        )
        for name in names
    ]


def _undeclared(text: str) -> str:
    """The text without a word on its encoding: scanners are given UTF-8, and would believe it."""
    return _COOKIE.sub(r"\1 ", text)


def _about(verdict: ScanVerdict, cwes: Collection[int]) -> ScanVerdict:
    """The verdict, without findings of CWEs that nobody asked about."""
    return ScanVerdict(tuple(f for f in verdict.findings if f.cwe in cwes), verdict.reason)


def _answer(found: bool, reason: str) -> Answer:
    if found:
        return "vulnerable"
    return "unscored" if reason else "not_found"
