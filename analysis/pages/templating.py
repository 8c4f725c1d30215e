"""The templates of every page; whatever they are given is escaped, and what cannot be seen in it becomes a mark."""

from __future__ import annotations

from typing import Any

import jinja2
from markupsafe import Markup

from bench.visible import visible


def show_value(value: Any) -> Any:
    """Return a value as a page shows it; markup that this package made is left as it is."""
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


TEMPLATES = jinja2.Environment(
    loader=jinja2.PackageLoader("analysis", "templates"),
    autoescape=True,
    finalize=show_value,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
