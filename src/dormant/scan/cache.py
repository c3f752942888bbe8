"""What scanners said of a text, kept: the same text under the same scanners and rules is not scanned twice."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from dormant.artifacts import default_store
from dormant.errors import BadInput
from dormant.scan.findings import Finding

AT_ONCE = 500
"""Keys in one query; SQLite takes no more than 999 in its older builds."""


class Cache:
    """A table from keys to findings in the user's cache; several processes may use it at once."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or default_store().root.with_name("scan.sqlite")

    def read(self, keys: Iterable[str]) -> dict[str, tuple[Finding, ...]]:
        """The findings of those keys that are known."""
        asked = sorted(set(keys))
        known: dict[str, tuple[Finding, ...]] = {}
        with self._open() as table:
            for start in range(0, len(asked), AT_ONCE):
                some = asked[start : start + AT_ONCE]
                marks = ",".join("?" * len(some))
                rows = table.execute(f"SELECT key, findings FROM scans WHERE key IN ({marks})", some)
                known |= {key: tuple(Finding(*finding) for finding in json.loads(text)) for key, text in rows}
        return known

    def write(self, found: Mapping[str, Iterable[Finding]]) -> None:
        """Keep findings by key."""
        rows = [
            (key, json.dumps([[f.line, f.cwe, f.scanner, f.rule] for f in findings]))
            for key, findings in found.items()
        ]
        with self._open() as table:
            table.executemany("INSERT OR REPLACE INTO scans VALUES (?, ?)", rows)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """The table, made if it is not there; what the disk or SQLite refuses becomes one line."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=60)) as table, table:
                table.execute(
                    "CREATE TABLE IF NOT EXISTS scans (key TEXT PRIMARY KEY, findings TEXT NOT NULL)"
                )
                yield table
        except (OSError, sqlite3.Error, ValueError, TypeError) as error:
            raise BadInput(f"the scan cache {self.path} can not be used ({error}); delete it") from None
