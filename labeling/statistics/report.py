"""All sections of Review together, and which votes they are asked about.

scope = scope_of({"kind": "human", "since": "2026-08-01"})
sections = [whole(facts, scope, id) for id in SECTIONS]
"""

import datetime
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from importlib import import_module
from types import ModuleType
from urllib.parse import urlencode

from palate.config import UserError
from palate.data.facts import Facts
from palate.labeling.statistics.formatting import one_line
from palate.labeling.statistics.panels import Panel, Section
from palate.labeling.statistics.scope import KINDS, Scope

SECTIONS = {
    "progress": "Progress",
    "agreement": "Agreement",
    "annotators": "Annotators",
    "models": "Models",
    "data": "Data",
    "training": "Training",
}
MODULES = {
    "progress": "progress_section",
    "agreement": "agreement_section",
    "annotators": "annotators_section",
    "models": "models_section",
    "data": "data_section",
    "training": "views_section",
}
Late = dict[str, Callable[[Facts, Scope], Panel]]


def section(facts: Facts, scope: Scope, id: str) -> Section:
    """A section with what is quick: its late panels are stand-ins."""
    return Section(id, SECTIONS[id], tuple(_module(id).panels(facts, scope)))


def late(facts: Facts, scope: Scope, id: str, panel: str) -> Panel | None:
    """The whole of a panel that takes longer; None when the section has no such panel."""
    made: Late = _module(id).LATE
    return made[panel](facts, scope) if panel in made else None


def whole(facts: Facts, scope: Scope, id: str) -> Section:
    """A section with its late panels."""
    quick = section(facts, scope, id)
    panels = (late(facts, scope, id, panel.id) if panel.late else panel for panel in quick.panels)
    return replace(quick, panels=tuple(panel for panel in panels if panel is not None))


def load() -> None:
    """Load what computing takes, before somebody waits for it."""
    for id in MODULES:
        _module(id)


def _module(id: str) -> ModuleType:
    """Loaded when it is asked for: scipy takes a while, and `palate label` starts without it."""
    return import_module(f"palate.labeling.statistics.{MODULES[id]}")


# -- the scope as it is asked for -----------------------------------------------------------------------------


def scope_of(asked: Mapping[str, str | None]) -> Scope:
    """The scope in a query string or in flags: kind, source, tag, since, until. UserError: one line."""
    kind = asked.get("kind") or "human"
    found = next((known for known in KINDS if known == kind), None)
    if found is None:
        raise UserError(f"kind is one of {', '.join(KINDS)}, got {_said(kind)}")
    since, until = _day("since", asked.get("since")), _day("until", asked.get("until"))
    if since and until and until < since:
        raise UserError(f"since ({since}) is after until ({until})")
    return Scope(found, asked.get("source") or None, asked.get("tag") or None, since, until)


def _day(name: str, text: str | None) -> datetime.date | None:
    if not text:
        return None
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise UserError(f"{name} is a day like 2026-08-31, got {_said(text)}") from None


def _said(text: str) -> str:
    return repr(one_line(text, 40))


def check_scope(facts: Facts, scope: Scope) -> None:
    """A UserError when no vote can be in the scope because its source or tag is not known."""
    for name, value, known in (("source", scope.source, sources(facts)), ("tag", scope.tag, tags(facts))):
        if value is not None and value not in known:
            shown = ", ".join(one_line(each, 40) for each in known[:8]) + (", ..." if len(known) > 8 else "")
            raise UserError(
                f"no vote is on a prompt with the {name} {_said(value)}; there are: {shown or 'none yet'}"
            )


def sources(facts: Facts) -> list[str]:
    """The sources of prompts with votes, by name."""
    return facts.remember(("sources",), lambda: _names(facts, "SELECT name FROM source ORDER BY name"))


def tags(facts: Facts) -> list[str]:
    """The tags of prompts with votes, by name."""
    return facts.remember(
        ("tags",), lambda: _names(facts, "SELECT DISTINCT tag AS name FROM item_tag ORDER BY 1")
    )


def _names(facts: Facts, sql: str) -> list[str]:
    return [name for row in facts.rows(sql) if (name := str(row["name"]))]


def query_of(scope: Scope) -> str:
    """The scope as a query string with its question mark; empty for all votes of people."""
    asked = {
        name: value for name, value in asked_of(scope).items() if value and (name, value) != ("kind", "human")
    }
    return f"?{urlencode(asked)}" if asked else ""


def scope_text(scope: Scope) -> str:
    """The scope in words: `votes of people, source hh, since 2026-08-01`."""
    who = {"human": "people", "rule": "rules", "model": "models as judges"}[scope.kind]
    parts = [
        f"{name} {one_line(str(value), 60)}"
        for name, value in asked_of(scope).items()
        if value and name != "kind"
    ]
    return ", ".join([f"votes of {who}", *parts])


def asked_of(scope: Scope) -> dict[str, str]:
    """What `scope_of` makes this scope of."""
    return {f.name: str(value) for f in fields(scope) if (value := getattr(scope, f.name)) is not None}
