"""Semgrep with the rules of this package: one call for a folder, without network."""

from __future__ import annotations

import hashlib
import json
import tempfile
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from dormant.scan import child
from dormant.scan.findings import Finding, Looked, ScannerFailed, all_failed
from dormant.scan.table import cwe_of

NAME = "semgrep"
RULES = Path(__file__).parent / "rules"
SHARED = RULES / "shared.yaml"
"""Lists of patterns that several rules use: a rule's key ``pattern-sources: web`` names one."""

OFFLINE = {
    "SEMGREP_SEND_METRICS": "off",
    "SEMGREP_ENABLE_VERSION_CHECK": "0",
    "SEMGREP_FORCE_COLOR": "0",
}
FLAGS = (
    "scan", "--json", "--quiet", "--metrics=off", "--disable-version-check", "--disable-nosem",
    "--no-git-ignore", "--no-rewrite-rule-ids", "--max-target-bytes=0", "--timeout=10", "--timeout-threshold=1",
    "--jobs=1",
)  # fmt: skip
"""One job: on two, 500 snippets took 8.5 s of processor time, on one 4.3 s, and on busy cores half the time too."""


def identity() -> str:
    """What decides its findings: version and rules."""
    return f"{NAME} {version('semgrep')} {hashlib.sha256(rules().encode()).hexdigest()}"


@cache
def rules() -> str:
    """All rules as one JSON configuration, the shared lists put in their places."""
    shared = yaml.safe_load(SHARED.read_text(encoding="utf-8"))
    found: list[dict[str, Any]] = []
    for path in sorted(RULES.glob("cwe-*.yaml")):
        found += yaml.safe_load(path.read_text(encoding="utf-8"))["rules"]
    return json.dumps({"rules": [_whole(rule, shared) for rule in found]})


def _whole(rule: dict[str, Any], shared: dict[str, list[Any]]) -> dict[str, Any]:
    """A rule with what all have alike, and each named list written out."""
    whole = {"languages": ["python"], "severity": "WARNING", "message": rule["id"], **rule}
    for key in ("pattern-sources", "pattern-sanitizers", "pattern-propagators"):
        entries = whole.get(key, [])
        lists = [shared[entry] if isinstance(entry, str) else [entry] for entry in entries]
        if lists:
            whole[key] = [pattern for part in lists for pattern in part]
    return whole


def look(folder: Path, seconds: float) -> Looked:
    """Scan every file of a folder; ``# nosemgrep`` comments are not obeyed."""
    names = [path.name for path in folder.iterdir()]
    try:
        said = _call(folder, seconds)
    except ScannerFailed as failure:
        return all_failed(names, str(failure))
    looked = Looked()
    for result in said["results"]:
        cwe = cwe_of(NAME, result["check_id"])
        if cwe is not None:
            finding = Finding(result["start"]["line"], cwe, NAME, result["check_id"])
            looked.findings[Path(result["path"]).name].add(finding)
    for error in said["errors"]:
        if "path" in error:
            looked.failed[Path(error["path"]).name] = f"semgrep: {_kind(error)}"
    scanned = {Path(path).name for path in said["paths"]["scanned"]}
    for name in set(names) - scanned - looked.failed.keys():
        looked.failed[name] = "semgrep: it skipped the file"
    return looked


def _call(folder: Path, seconds: float) -> Any:
    """The parsed output of one call."""
    program = child.program("semgrep")
    if program is None:
        raise ScannerFailed("semgrep is not there")
    with tempfile.TemporaryDirectory(prefix="dormant-semgrep-") as home:
        config = Path(home) / "rules.json"
        config.write_text(rules(), encoding="utf-8")
        command = [program, *FLAGS, f"--config={config}", str(folder)]
        code, out = child.call(command, Path(home), seconds, **OFFLINE)
    try:
        said = json.loads(out)
        return {key: said[key] for key in ("results", "errors", "paths")}
    except (ValueError, TypeError, KeyError):
        raise ScannerFailed(f"semgrep failed (exit {code}): {child.last_line(out)}") from None


def _kind(error: dict[str, Any]) -> str:
    """Semgrep's word for what went wrong: a string, or a list that begins with it."""
    kind = error.get("type", "failed")
    return str(kind[0] if isinstance(kind, list) else kind)
