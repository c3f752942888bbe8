"""Bandit, in this process: it reads syntax trees, so a thousand snippets take half a second."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from dormant.scan.findings import Finding, Looked, all_failed
from dormant.scan.table import BANDIT, cwe_of

NAME = "bandit"


def identity() -> str:
    """What decides its findings, the table apart."""
    return f"{NAME} {version('bandit')}"


def look(folder: Path, seconds: float) -> Looked:
    """Scan every file of a folder; ``# nosec`` comments are not obeyed.  It has no time limit and needs none."""
    from bandit.core.config import BanditConfig
    from bandit.core.manager import BanditManager

    manager = BanditManager(BanditConfig(), "file", profile={"include": sorted(BANDIT)}, ignore_nosec=True)
    files = sorted(folder.iterdir())
    try:
        manager.discover_files([str(path) for path in files])
        manager.run_tests()
    except Exception as error:  # A plug-in of Bandit may raise anything; a crash is a reason, not a verdict.
        return all_failed((path.name for path in files), f"bandit failed: {type(error).__name__}")
    looked = Looked(failed={Path(name).name: f"bandit: {why}" for name, why in manager.skipped})
    for issue in manager.get_issue_list():
        cwe = cwe_of(NAME, issue.test_id, issue.severity, issue.confidence)
        if cwe is not None:
            looked.findings[Path(issue.fname).name].add(Finding(issue.lineno, cwe, NAME, issue.test_id))
    return looked
