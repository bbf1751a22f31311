"""Review, Training: what training takes of the votes without a view, and what each saved view makes of that."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from palate.data.facts import Facts
from palate.data.training_views import Definition, View, names_of, views
from palate.labeling.statistics.formatting import number
from palate.labeling.statistics.panels import Cell, Column, Panel, Table
from palate.labeling.statistics.scope import Scope
from palate.labeling.statistics.view_effects import Effect, Kept, effect, kept

BIG = 500_000  # judgements; from here on figures follow after the page stands
PLAIN = "without a view"

_COLUMNS = (
    Column("view", "view"),
    Column("does", "what it takes"),
    Column("comparisons", "comparisons", "count"),
    Column(
        "pairs",
        "pairs",
        "count",
        help="Pairs of completions with a label: one per vote, or one per pair where the majority is taken.",
    ),
    Column("votes", "votes", "count", help="Votes that gave one of these labels."),
    Column(
        "agreement",
        "agreement",
        "share",
        help="How often two votes on the same two completions say the same, among the votes that count on the pairs "
        "that are kept.",
    ),
    Column(
        "longer",
        "longer one wins",
        "share",
        help="Of the decided pairs of different lengths, the share that the longer completion wins, as training "
        "weighs them.",
    ),
)


@dataclass(frozen=True)
class Row:
    """A view, and what it keeps; None: not computed yet."""

    name: str
    does: str
    kept: Kept | None


def panels(facts: Facts, scope: Scope) -> list[Panel]:
    """One panel; `scope` does not apply, as a view has its own filters."""
    judgements = int(facts.value("SELECT count(*) FROM judgement"))
    return [views_panel(facts, scope) if judgements < BIG else _panel(facts, False)]


def views_panel(facts: Facts, scope: Scope) -> Panel:
    """The whole panel: every view beside what training takes without one."""
    return _panel(facts, True)


LATE: dict[str, Callable[[Facts, Scope], Panel]] = {"views": views_panel}


def _panel(facts: Facts, whole: bool) -> Panel:
    saved = views(facts.store)
    people = names_of(facts.store, sorted({who for one in saved for who in one.definition.exclude}))
    plain = kept(facts, View("")) if whole else None
    rows = [
        Row(PLAIN, said(Definition()), plain),
        *(
            Row(one.name, said(one.definition, people), effect(facts, one).after if whole else None)
            for one in saved
        ),
    ]
    question = "What does training take, and what would a view change?"
    if plain is not None and not plain.votes:
        return Panel(
            "views",
            question,
            missing="No vote yet that training could take: rank some completions of training prompts first.",
            tables=(table(rows),) if saved else (),
        )
    return Panel(
        "views",
        question,
        answer=_answer(rows) if whole else "",
        read="A view that raises agreement leaves out, or outvotes, what people disagree about; a share far from 50 % "
        "in the last column teaches length along with preference.",
        tables=(table(rows),),
        notes=tuple(_notes(rows, saved)),
        late=not whole,
    )


def table(rows: Sequence[Row], does: bool = True) -> Table:
    """Views and what they keep, one row each; `does` puts into words what each takes."""
    columns = _COLUMNS if does else tuple(column for column in _COLUMNS if column.key != "does")
    return Table(columns, [_cells(row) for row in rows])


def effect_rows(view: View, found: Effect) -> list[Row]:
    """A view under what training takes without one."""
    return [Row(PLAIN, "", found.before), Row(view.name, "", found.after)]


def said(definition: Definition, names: dict[str, str] | None = None) -> str:
    """What a definition does, in one line."""
    return ", ".join(definition.in_words(names or {}))


def _cells(row: Row) -> dict[str, Cell]:
    cells: dict[str, Cell] = {"view": row.name, "does": row.does}
    for name in ("comparisons", "pairs", "votes", "agreement", "longer"):
        cells[name] = None if row.kept is None else getattr(row.kept, name)
    return cells


def _answer(rows: Sequence[Row]) -> str:
    plain, others = rows[0].kept, rows[1:]
    assert plain is not None
    takes = f"Without a view, training takes {_many(plain.votes, 'vote')} on {_many(plain.comparisons, 'comparison')}"
    if not others:
        return f"{takes}; no view is saved."
    shares = [
        f"{row.name} keeps {number(row.kept.votes / plain.votes, 'share')} of these votes"
        if row.kept.votes <= plain.votes
        else f"{row.name} takes {_many(row.kept.votes, 'vote')}"
        for row in others[:3]
        if row.kept is not None
    ]
    more = f"; see below for {_many(len(others) - 3, 'more view')}" if len(others) > 3 else ""
    return f"{takes}; {', '.join(shares)}{more}."


def _many(count: int, of: str) -> str:
    return f"{number(count, 'count')} {of}{'' if count == 1 else 's'}"


def _notes(rows: Sequence[Row], saved: Sequence[View]) -> list[str]:
    notes = ["A view has filters of its own: the choice of votes above does not apply here."]
    if not saved:
        notes.append(
            "palate view NAME --aggregate majority saves a view; palate reward --view NAME trains on it."
        )
    shown = [row.kept for row in rows if row.kept is not None]
    if any(one.agreement is None for one in shown):
        notes.append("Where agreement is missing, no two completions have two votes that count.")
    if any(one.longer is None for one in shown):
        notes.append("Where the last column is missing, no decided pair has two lengths.")
    if any(row.kept.votes == 0 for row in rows[1:] if row.kept is not None):
        notes.append("A view that keeps no vote can't be trained on.")
    if any(one.weights is not None for one in saved):
        notes.append(
            "Weights of reliability are those of the day the view was saved; palate view NAME --refresh renews them."
        )
    return notes
