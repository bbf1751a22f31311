"""Sections as plain values and back: JSON for scripts, and for `palate stats` beside a running server.

    found = as_plain(scope, sections)       {"scope": {"kind": "human"}, "sections": [{"id", "title", "panels"}]}
    sections = sections_of(found)

Plots say their kind in `type`; everything else is as in panels.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from palate.labeling.statistics.panels import (
    Column,
    Figure,
    Heat,
    Histogram,
    Intervals,
    Lines,
    Panel,
    Plot,
    Section,
    Table,
)
from palate.labeling.statistics.report import asked_of
from palate.labeling.statistics.scope import Scope

PLOTS: dict[str, Callable[..., Plot]] = {
    "intervals": Intervals,
    "histogram": Histogram,
    "heat": Heat,
    "lines": Lines,
}


def as_plain(scope: Scope, sections: Sequence[Section]) -> dict[str, Any]:
    """What `palate stats --json` prints and GET /api/v1/statistics answers."""
    return {"scope": asked_of(scope), "sections": [_plain(one) for one in sections]}


def sections_of(found: Mapping[str, Any]) -> list[Section]:
    """The sections of `as_plain`."""
    return [
        Section(s["id"], s["title"], tuple(_panel(panel) for panel in s["panels"])) for s in found["sections"]
    ]


def _plain(value: Any) -> Any:
    """Dicts, lists, texts and numbers; floats that JSON does not know are a mistake of whoever made them."""
    if is_dataclass(value) and not isinstance(value, type):
        names = {Intervals: "intervals", Histogram: "histogram", Heat: "heat", Lines: "lines"}
        kind = {"type": names[type(value)]} if type(value) in names else {}
        return kind | {f.name: _plain(getattr(value, f.name)) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(each) for each in value]
    return value.item() if isinstance(value, np.generic) else value


def _panel(found: Mapping[str, Any]) -> Panel:
    made = {
        "figures": tuple(Figure(**each) for each in found["figures"]),
        "tables": tuple(
            Table(**{**each, "columns": tuple(Column(**column) for column in each["columns"])})
            for each in found["tables"]
        ),
        "plots": tuple(_plot(each) for each in found["plots"]),
        "notes": tuple(found["notes"]),
    }
    return Panel(**{**found, **made})


def _plot(found: Mapping[str, Any]) -> Plot:
    return PLOTS[found["type"]](**{name: value for name, value in found.items() if name != "type"})
