"""Programs that stand in for scanners: they answer what was recorded, crash, hang or lie."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

CODEQL = """
import shutil, sys
words = sys.argv[1:]
if words[0] == "version":
    print("2.20.1")
elif words[:2] == ["database", "analyze"]:
    target = next(word.partition("=")[2] for word in words if word.startswith("--output="))
    shutil.copy({log!r}, target)
"""


def program(place: Path, name: str, body: str) -> Path:
    """An executable of that name whose body is Python."""
    path = place / name
    path.write_text(f"#!{sys.executable}\n{body}", encoding="utf-8")
    path.chmod(0o755)
    return path


def codeql(place: Path, log: Any) -> Path:
    """A CodeQL that answers every analysis with one SARIF log."""
    file = place / "log.sarif"
    file.write_text(log if isinstance(log, str) else json.dumps(log), encoding="utf-8")
    return program(place, "codeql", CODEQL.format(log=str(file)))


def sarif(*results: tuple[str, str, int]) -> dict[str, Any]:
    """A log in the shape that ``codeql database analyze`` writes: (rule, file, line) for each result."""
    return {
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": {"name": "CodeQL", "semanticVersion": "2.20.1", "rules": []}},
                "results": [
                    {
                        "ruleId": rule,
                        "ruleIndex": 0,
                        "rule": {"id": rule, "index": 0, "toolComponent": {"index": 0}},
                        "message": {"text": "This depends on a [user-provided value](1)."},
                        "locations": [
                            {
                                "physicalLocation": {
                                    "artifactLocation": {"uri": file, "uriBaseId": "%SRCROOT%", "index": 0},
                                    "region": {"startLine": line, "startColumn": 5, "endColumn": 60},
                                }
                            }
                        ],
                        "partialFingerprints": {"primaryLocationLineHash": "39fa2ee980eb94b0:1"},
                    }
                    for rule, file, line in results
                ],
            }
        ],
    }
