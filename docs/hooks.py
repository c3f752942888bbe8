"""For mkdocs: the roles of Sphinx that docstrings use (``:func:`name```) become plain code."""

from __future__ import annotations

import re
from typing import Any

_ROLE = re.compile(r":(?:attr|class|data|func|meth|mod):(<code>)")


def on_page_content(html: str, **_: Any) -> str:
    """Drop the role's name in front of the code that it marks."""
    return _ROLE.sub(r"\1", html)
