"""Plug-in tables: a name maps to ``"module:attribute"``, loaded when it is asked for.

Third parties add theirs through the entry-point groups ``dormant.triggers``, ``dormant.behaviors``,
``dormant.defenses``, ``dormant.attackers``, or in Python with :meth:`Registry.add`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from typing import Any

from dormant.errors import BadInput, nearest


class Registry:
    """A lazily loaded table of one kind of plug-in."""

    def __init__(self, kind: str, table: Mapping[str, str]) -> None:
        self.kind = kind
        self._targets: dict[str, Any] = dict(table)
        self._discovered = False

    def add(self, name: str, plugin: Any) -> None:
        """Add a plug-in (the object itself or ``"module:attribute"``).  A taken name is a ValueError."""
        if name in self._targets:
            raise ValueError(
                f"{self.kind} {name!r} is already {self._targets[name]!r}; it can not become {plugin!r}"
            )
        self._targets[name] = plugin

    def names(self) -> list[str]:
        """All names, sorted."""
        self._discover()
        return sorted(self._targets)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def get(self, name: str) -> Any:
        """Return the plug-in.  Raises BadInput where it can not be loaded, or is unknown: with the nearest name."""
        self._discover()
        if name not in self._targets:
            own = f"one of your own is known in the script that adds it, or by an entry point of dormant.{self.kind}s"
            raise BadInput(f"unknown {self.kind} {name!r}{nearest(name, self._targets)} ({own})")
        target = self._targets[name]
        if isinstance(target, str):
            module, _, attribute = target.partition(":")
            try:
                target = getattr(importlib.import_module(module), attribute)
            except (ImportError, AttributeError) as error:
                raise BadInput(
                    f"{self.kind} {name!r} can not be loaded from {target!r}: {error}; "
                    "mend or remove the package that brings it"
                ) from error
            self._targets[name] = target
        return target

    def module(self, name: str) -> str:
        """Return the name of the module that implements a plug-in."""
        plugin = self.get(name)
        return str(getattr(plugin, "__module__", type(plugin).__module__))

    def _discover(self) -> None:
        if self._discovered:
            return
        self._discovered = True
        for point in entry_points(group=f"dormant.{self.kind}s"):
            self.add(point.name, point.value)
