"""CodeQL, where it is installed: a database of the folder, its security queries, SARIF."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote

from dormant.scan import child
from dormant.scan.findings import Finding, Looked, ScannerFailed, all_failed
from dormant.scan.table import cwe_of

NAME = "codeql"
SUITE = "codeql/python-queries:codeql-suites/python-security-extended.qls"


def here() -> bool:
    """Whether CodeQL is on the PATH."""
    return child.program(NAME) is not None


def identity() -> str:
    """What decides its findings: the version that it says it is."""
    with tempfile.TemporaryDirectory(prefix="dormant-codeql-") as home:
        try:
            return f"{NAME} {_run(home, 60, 'version', '--format=terse').strip()} {SUITE}"
        except ScannerFailed as failure:
            return str(failure)  # The scan itself will say so, of every file.


def look(folder: Path, seconds: float) -> Looked:
    """Scan every file of a folder."""
    names = [path.name for path in folder.iterdir()]
    try:
        said = _analyze(folder, seconds)
        found = list(findings(said))
    except ScannerFailed as failure:
        return all_failed(names, str(failure))
    looked = Looked()
    for name, finding in found:
        looked.findings[name].add(finding)
    return looked


def findings(sarif: Any) -> Iterator[tuple[str, Finding]]:
    """File name and finding of every result of a SARIF 2.1.0 log whose rule is in the table.

    Raises:
        ScannerFailed: it is no such log.
    """
    try:
        for run in sarif["runs"]:
            for result in run["results"]:
                rule = result.get("ruleId") or result["rule"]["id"]
                cwe = cwe_of(NAME, rule)
                place = result["locations"][0]["physicalLocation"]
                name = PurePosixPath(unquote(place["artifactLocation"]["uri"])).name
                if cwe is not None:
                    yield name, Finding(place.get("region", {}).get("startLine", 1), cwe, NAME, rule)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise ScannerFailed(f"codeql wrote a SARIF log without {error}") from None


def _analyze(folder: Path, seconds: float) -> Any:
    with tempfile.TemporaryDirectory(prefix="dormant-codeql-") as home:
        database, log = f"{home}/database", Path(home) / "log.sarif"
        source = ["--language=python", f"--source-root={folder}", database]
        _run(home, seconds, "database", "create", *source)
        written = ["--format=sarif-latest", f"--output={log}"]
        _run(home, seconds, "database", "analyze", database, SUITE, *written)
        try:
            return json.loads(log.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise ScannerFailed("codeql wrote no SARIF log that can be read") from None


def _run(home: str, seconds: float, *arguments: str) -> str:
    program = child.program(NAME)
    if program is None:
        raise ScannerFailed("codeql is not there")
    code, out = child.call([program, *arguments], Path(home), seconds)
    if code:
        raise ScannerFailed(f"codeql {arguments[0]} failed (exit {code}): {child.last_line(out)}")
    return out
