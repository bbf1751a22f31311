"""`palate view`: save, show and forget views of the votes for training.

palate view careful --aggregate majority --min-agreement 0.6 --no-ties     save it; what it keeps, before and after
palate view careful                                                        show it
palate view                                                                list all

The database may be here or behind a running server, which then computes the figures and the weights.
"""

import json
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from palate.config import UserError, ViewConfig
from palate.data.any_store import AnyStore
from palate.data.facts import Facts
from palate.data.remote import RemoteStore
from palate.data.store import Store
from palate.data.training_views import Definition, View, annotator_ids, checked_name, names_of, view, views
from palate.labeling.statistics.terminal import table_lines
from palate.labeling.statistics.view_effects import Effect, Kept, effect
from palate.labeling.statistics.views_section import Row, effect_rows, said, table
from palate.labeling.statistics.weights import save_view
from palate.project import Project

_NOT_SETTINGS = {"name", "refresh", "delete", "json", "project"}
_DEFAULTS = {one.name: one.default for one in fields(ViewConfig)}


def run_view(project: Project, config: ViewConfig) -> None:
    """Do what the flags ask for, and print it."""
    given = sorted(
        name for name in set(_DEFAULTS) - _NOT_SETTINGS if getattr(config, name) != _DEFAULTS[name]
    )
    if config.name is None:
        if given or config.refresh or config.delete:
            raise UserError("which view? For example: palate view careful --aggregate majority")
    elif (bool(given) + config.refresh + config.delete) > 1:
        raise UserError("--delete, --refresh and settings of a view don't go together: one at a time")
    with project.store() as store:
        if config.name is None:
            _list(store, config)
        elif config.delete:
            view(store, config.name)
            store.delete_view(config.name)
            print(f"forgot the view '{config.name}'; runs that took it keep its definition")
        elif given:
            _save(store, config.name, _definition(store, config), config)
        else:
            known = view(store, config.name)
            if config.refresh:
                _save(store, config.name, known.definition, config)
            else:
                _show(store, known, config)


def _definition(store: AnyStore, config: ViewConfig) -> Definition:
    """What the flags say."""
    values = {name: getattr(config, name) for name in set(_DEFAULTS) - _NOT_SETTINGS - {"aggregate"}}
    values["exclude"] = annotator_ids(store, config.exclude)
    return Definition.of({**values, "aggregation": config.aggregate or "vote"})


def _save(store: AnyStore, name: str, definition: Definition, config: ViewConfig) -> None:
    replaced = checked_name(name) in {one.name for one in views(store)}
    if isinstance(store, Store):
        with _facts(store) as facts:
            save_view(store, facts, name, definition)
    else:
        store.put_view(name, definition.as_dict(), None, None)
    if not config.json:
        print(f"{'replaced' if replaced else 'saved'} the view '{name}'")
    _show(store, view(store, name), config)


def _show(store: AnyStore, known: View, config: ViewConfig) -> None:
    found = _effects(store, [known])[0]
    if config.json:
        print(json.dumps(as_json(known, found), indent=2, ensure_ascii=False))
        return
    print(f"  {said(known.definition, names_of(store, known.definition.exclude))}")
    print("\n".join(table_lines(table(effect_rows(known, found), does=False))))
    for sentence in remarks(known, found):
        print(f"  {sentence}")
    print(f"next: palate reward --view {known.name}, palate dpo --view {known.name}")


def _list(store: AnyStore, config: ViewConfig) -> None:
    known = views(store)
    found = _effects(store, known)
    if config.json:
        shown = [as_json(one, its) for one, its in zip(known, found, strict=True)]
        print(json.dumps(shown, indent=2, ensure_ascii=False))
        return
    if not known:
        print("no view is saved; for example: palate view careful --aggregate majority --min-agreement 0.6")
        return
    people = names_of(store, sorted({who for one in known for who in one.definition.exclude}))
    rows = [Row("without a view", said(Definition()), found[0].before)]
    rows += [
        Row(one.name, said(one.definition, people), its.after) for one, its in zip(known, found, strict=True)
    ]
    print("\n".join(table_lines(table(rows))))


def remarks(known: View, found: Effect) -> list[str]:
    """What should be said of a view beside its figures."""
    made = []
    if not found.after.votes:
        made.append("it keeps no vote, so nothing can be trained on it")
    if known.weights is not None:
        values = list(known.weights.values())
        if not values:
            made.append(
                "nobody has decided a pair that tells how reliable they are: every vote weighs the same"
            )
        else:
            none = sum(not value for value in values)
            left = f"; {none} of them are no better than chance and don't count" if none else ""
            made.append(f"weights of {len(values):,} annotators are kept in the view{left}")
    return made


def as_json(known: View, found: Effect) -> dict[str, Any]:
    """A view and what it does, as GET /api/v1/views/NAME answers."""
    return {
        **known.record(),
        "created_by": known.created_by,
        "weights": None if known.weights is None else dict(known.weights),
        "before": vars(found.before),
        "after": vars(found.after),
    }


def _effects(store: AnyStore, known: Sequence[View]) -> list[Effect]:
    if not known:
        return []
    if isinstance(store, Store):
        with _facts(store) as facts:
            return [effect(facts, one) for one in known]
    assert isinstance(store, RemoteStore)
    answers = [store.get(f"/views/{one.name}") for one in known]
    return [Effect(Kept(**answer["before"]), Kept(**answer["after"])) for answer in answers]


def _facts(store: Store) -> Facts:
    facts = Facts(store)
    try:
        facts.refresh()
    except BaseException:
        facts.close()
        raise
    return facts
