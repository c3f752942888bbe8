"""Errors a user can act on.

``DormantError``
    ``BadInput``      something the user gave is wrong: exit code 2
    ``Corrupt``       a file on disk is not what its manifest says: exit code 2

Each message is one line: what is wrong, which value, the nearest valid name where there is one,
and what to do.  Programmer errors stay plain ``assert`` or ``ValueError``.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any


class DormantError(Exception):
    """Base of every error that reaches the user as one line instead of a traceback."""


class BadInput(DormantError, ValueError):
    """The user's input (file, setting, name, model) can not be used as it is."""


class Corrupt(DormantError):
    """An artifact's bytes differ from its manifest."""


_TOO_LITTLE = ("not enough memory", "can't allocate memory", "out of memory", "CUBLAS_STATUS_ALLOC_FAILED")


def ran_out(error: BaseException) -> bool:
    """Whether an error says that there is too little memory, which torch says at length and in errors of many kinds."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _TOO_LITTLE)


_NEAR = 0.65
"""How alike two names must be: "sdg" and "sgd" are (0.67), "reward" and "near" are not (0.6)."""


def nearest(name: str, options: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the closest option, else the list of the options.

    The text is meant to be appended to a message about an unknown name.
    """
    options = sorted(options)
    close = difflib.get_close_matches(name, options, n=1, cutoff=_NEAR)
    # Letters that changed places make short names look less alike than they are.
    close += [option for option in options if sorted(option) == sorted(name)]
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; valid names: {', '.join(options)}" if options else ""


def refusal(found: Mapping[str, Any]) -> str:
    """Why a value was refused, of an error as pydantic describes it, without the library's own words."""
    if found["type"] in ("tuple_type", "list_type"):
        return "must be a list, as in [a, b]"
    if found["type"] in ("model_type", "dict_type"):
        return "must be settings, as in {key: value}"
    if found["type"] == "too_short":
        return f"must hold at least {found['ctx']['min_length']}"
    return str(found["msg"]).removeprefix("Value error, ")
