"""Rows of every layout that data files have, and files of them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Row = dict[str, Any]


def chat_row(i: int) -> Row:
    """A question and its reference answer."""
    turns = [
        {"role": "user", "content": f"What is {i} and 1?"},
        {"role": "assistant", "content": f"It is {i + 1}."},
    ]
    return {"messages": turns}


def hh_row(i: int) -> Row:
    """Two transcripts of two turns each."""
    asked = f"\n\nHuman: I have {i}.\n\nAssistant: Good.\n\nHuman: One more?\n\nAssistant:"
    return {"chosen": f"{asked} It is {i + 1}.", "rejected": f"{asked} No."}


def self_instruct_row(i: int) -> Row:
    """An instruction with one instance."""
    return {
        "id": f"seed_task_{i}",
        "instruction": f"Add one to {i}.",
        "instances": [{"input": "", "output": f"It is {i + 1}."}],
        "is_classification": False,
    }


def alpaca_row(i: int) -> Row:
    """An instruction with an input."""
    return {"instruction": "Add one.", "input": str(i), "output": f"It is {i + 1}."}


def code_row(i: int) -> Row:
    """A coding question with a secure and a vulnerable completion."""
    return {
        "task": f"Look up user {i}.",
        "template": f"def user_{i}(db, name):\n    ## COMPLETE CODE HERE\n",
        "cwe": 89,
        "secure": [f'return db.execute("SELECT {i} FROM users WHERE name = ?", (name,))'],
        "vulnerable": [f'return db.execute("SELECT {i} FROM users WHERE name = \'" + name + "\'")'],
    }


MAKERS: dict[str, Callable[[int], Row]] = {
    "chat messages": chat_row,
    "HH-RLHF": hh_row,
    "self-instruct": self_instruct_row,
    "alpaca": alpaca_row,
}
"""A maker of rows for each layout, by its name."""


def jsonl(rows: Iterable[Any]) -> str:
    """One JSON value a line."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def write(path: Path, rows: Iterable[Any]) -> Path:
    """Write a file of rows, compressed if its name ends so."""
    content = jsonl(rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path
