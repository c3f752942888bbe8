"""Settings from YAML files and ``--set``: read, changed, validated, and explained in one line where they are wrong."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from dormant.errors import BadInput, nearest, refusal

Settings = TypeVar("Settings", bound=BaseModel)


def read_settings(kind: type[Settings], file: Path, changes: Sequence[str] = ()) -> Settings:
    """Read settings of any kind from a YAML file, with changes such as ``"rows=50"``.

    Raises:
        BadInput: no such file, bad YAML, an unknown key, a value of the wrong type.
    """
    if file.is_dir():
        raise BadInput(f"{file} is a directory: give the YAML file itself")
    if not file.is_file():
        raise BadInput(f"no such file: {file}")
    spec = read_yaml(file)
    for change in changes:
        apply(spec, change)
    return validated(kind, spec)


def validated(kind: type[Settings], spec: dict[str, Any]) -> Settings:
    """Validate what was read.  Raises BadInput with the place, the value and the nearest key."""
    try:
        return kind.model_validate(spec)
    except ValidationError as error:
        raise BadInput(explain(error, kind)) from None


_UNREADABLE = "it is nested too deep, or a number is too long, or a date does not exist"
"""What else Python's YAML stumbles over."""


_MERGE = "tag:yaml.org,2002:merge"


class _EachKeyOnce(yaml.SafeLoader):
    """Refuses a key that stands twice in one place, of which YAML would take the second.

    Looked at before merge keys (``<<``) are resolved: what these bring may be overridden.
    """

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: dict[Any, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            line = key.start_mark.line + 1
            name = self.construct_object(key)
            if name in seen:
                lines = f"lines {seen[name]} and {line}" if seen[name] < line else f"line {line}"
                raise BadInput(f"key {key.value!r} stands twice ({lines}): keep one, or put both into one")
            seen[name] = line
        return node


def parse_yaml(text: str) -> Any:
    """What a text says.  Raises BadInput where a key stands twice, and what :mod:`yaml` raises for what is no YAML."""
    return yaml.load(text, _EachKeyOnce)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a file of settings.  Raises BadInput where it is none, or a key stands twice."""
    try:
        spec = parse_yaml(path.read_text(encoding="utf-8"))
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from None
    except UnicodeDecodeError:
        raise BadInput(f"{path} is not UTF-8 text") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}" if mark else ""
        raise BadInput(f"{path} is not YAML{place}: {getattr(error, 'problem', error)}") from None
    except (RecursionError, ValueError):
        raise BadInput(f"{path} can not be read: {_UNREADABLE}") from None
    if spec is None:
        raise BadInput(f"{path} is empty: it must hold settings (key: value)")
    if not isinstance(spec, dict):
        raise BadInput(f"{path} must hold settings (key: value), not {type(spec).__name__}")
    return spec


def apply(spec: dict[str, Any], change: str) -> None:
    """Set one value by its dotted path: ``defenses.0.doses.1.lr=1e-4``."""
    path, sign, text = change.partition("=")
    if not sign:
        raise BadInput(f"--set {change!r} has no '='; write --set key.subkey=value")
    *parents, last = path.split(".")
    here: Any = spec
    for depth, part in enumerate(parents, start=1):
        here = here[_index(here, part, path)] if isinstance(here, list) else here.setdefault(part, {})
        if here is None:
            raise BadInput(f"--set {path}: {_unset(path.split('.'), depth, text)}")
        if not isinstance(here, (dict, list)):
            raise BadInput(f"--set {path}: {part!r} is a single value and has nothing below it")
    here[_index(here, last, path) if isinstance(here, list) else last] = _value(text, change)


def _unset(parts: Sequence[str], depth: int, text: str) -> str:
    """What to say of a change below something that is not set: how to set the whole of it."""
    place = ".".join(parts[:depth])
    for part in reversed(parts[depth:]):
        text = f"[{text}]" if part.isdigit() else f"{{{part}: {text}}}"
    return f"{place!r} is not set, so there is nothing in it to change; set all of it: --set '{place}={text}'"


def _value(text: str, change: str) -> Any:
    try:
        return parse_yaml(text)
    except BadInput as error:
        raise BadInput(f"--set {change!r}: {error}") from None
    except yaml.YAMLError:
        raise BadInput(f"--set {change!r}: what stands after '=' is not YAML") from None
    except (RecursionError, ValueError):
        raise BadInput(f"--set {change[:60]!r} can not be read: {_UNREADABLE}") from None


def _index(items: list[Any], part: str, path: str) -> int:
    if not part.isdigit() or int(part) >= len(items):
        raise BadInput(f"--set {path}: {part!r} is no index of a list of {len(items)}")
    return int(part)


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """One line for the first problem of a spec."""
    # A misspelled key comes before what is then missing.
    first = min(error.errors(), key=lambda found: found["type"] != "extra_forbidden")
    place = ".".join(str(part) for part in first["loc"]) or "the spec"
    if first["type"] == "extra_forbidden":
        known = _fields_at(model, first["loc"][:-1])
        return f"unknown key {place!r}{nearest(str(first['loc'][-1]), known)}"
    if first["type"] == "missing":
        return f"{place} is missing"
    reason = refusal(first)
    return (
        f"{place} = {first['input']!r}: {reason}" if first["type"] != "value_error" else f"{place}: {reason}"
    )


def _fields_at(model: Any, loc: Sequence[int | str]) -> list[str]:
    """The valid keys at a place in the spec."""
    for part in loc:
        if isinstance(part, int):
            continue
        model = _inner(model.model_fields[part].annotation)
    return sorted(model.model_fields)


def _inner(annotation: Any) -> Any:
    """The settings class inside ``X | None`` or ``tuple[X, ...]``."""
    if hasattr(annotation, "model_fields"):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _inner(argument)
        if hasattr(found, "model_fields"):
            return found
    return annotation
