"""Saved views: which votes training takes, and how they become labels.

A view is a name and a definition, kept in the database. Votes that its filters leave out count as if they had never
been given; of what counts, each pair of completions of a comparison gets its label:

`vote`          every vote gives its own, as without a view
`majority`      the label most annotators gave; where no label has more votes than each other one, the two are tied
`reliability`   every vote gives its own and weighs as its annotator is reliable, by weights kept in the view

An adjudicated vote decides its comparison: under `majority` and `reliability` it alone counts. These two also take
one answer per annotator, the first. The rows themselves: `palate.data.view_rows`.
"""

import datetime
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

from palate.config import UserError
from palate.data.any_store import AnyStore
from palate.data.records import AnnotatorKind

Aggregation = Literal["vote", "majority", "reliability"]
TrainingPurpose = Literal[
    "train", "random", "repeat", "gold"
]  # comparisons to evaluate on are never trained on
AGGREGATIONS: tuple[Aggregation, ...] = get_args(Aggregation)
KINDS: tuple[AnnotatorKind, ...] = ("human", "rule", "model")
PURPOSES: tuple[TrainingPurpose, ...] = ("train", "random", "repeat")  # what training takes without a view
STRENGTHS = (1, 2, 3)  # slightly, better, much better; 0, hardly, counts as 1
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_HOW = {
    "vote": "each vote as it is",
    "majority": "the majority on each pair",
    "reliability": "votes weighted by reliability",
}


@dataclass(frozen=True)
class Definition:
    """What a view takes. As it stands: what training takes without a view. Raises UserError for what makes no sense."""

    aggregation: Aggregation = "vote"
    min_strength: int | None = (
        None  # of a pair that is no tie; known only where two completions were compared
    )
    unknown_strength: bool = False  # with min_strength: keep pairs whose strength nobody gave
    ties: bool = True  # keep pairs whose label is a tie
    min_agreement: float | None = (
        None  # share of a pair's votes that its most frequent label must have, above 0, to 1
    )
    keep_single: bool = False  # with min_agreement: keep pairs with a single vote
    exclude: tuple[str, ...] = ()  # ids of annotators whose votes don't count
    kinds: tuple[AnnotatorKind, ...] = ()  # of annotators; none named: all
    source: str | None = None  # of the prompt
    tag: str | None = None  # of the prompt
    purposes: tuple[TrainingPurpose, ...] = PURPOSES
    since: datetime.date | None = None  # first day that counts (UTC)
    until: datetime.date | None = None  # last day that counts (UTC)

    def __post_init__(self) -> None:
        self._one_of("aggregation", self.aggregation, AGGREGATIONS)
        for kind in self.kinds:
            self._one_of("kinds", kind, KINDS)
        for purpose in self.purposes:
            self._one_of("purposes", purpose, get_args(TrainingPurpose))
        if not self.purposes:
            raise UserError(f"purposes: name at least one of {', '.join(get_args(TrainingPurpose))}")
        if self.min_strength is not None and self.min_strength not in STRENGTHS:
            raise UserError(
                f"min_strength is 1 (slightly better), 2 (better) or 3 (much better), got {self.min_strength!r}"
            )
        if self.min_agreement is not None and not 0 < self.min_agreement <= 1:
            raise UserError(
                f"min_agreement is a share above 0 and at most 1, such as 0.6, got {self.min_agreement!r}"
            )
        for name, needs in (("unknown_strength", "min_strength"), ("keep_single", "min_agreement")):
            if getattr(self, name) and getattr(self, needs) is None:
                raise UserError(f"{name} goes with {needs}, which is not set")
        if self.since and self.until and self.since > self.until:
            raise UserError(f"no day is both since {self.since} and until {self.until}")

    @staticmethod
    def _one_of(name: str, value: object, known: Sequence[str]) -> None:
        if value not in known:
            raise UserError(f"{name}: {value!r} is not one of {', '.join(known)}")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Definition":
        """From JSON values; an unknown or ill-typed one is a UserError."""
        known = [one.name for one in fields(cls)]
        clean: dict[str, Any] = {}
        for name, value in values.items():
            if name not in known:
                raise UserError(f"a view has no setting '{name}'; known are {', '.join(sorted(known))}")
            clean[name] = _read(name, value)
        return cls(**clean)

    def as_dict(self) -> dict[str, Any]:
        """As JSON values; `Definition.of` reads them back."""
        return {
            name: value.isoformat() if isinstance(value, datetime.date) else _plain(value)
            for name, value in asdict(self).items()
        }

    @property
    def decided(self) -> bool:
        """Whether an adjudicated vote alone counts on its comparison, and an annotator's first answer alone."""
        return self.aggregation != "vote"

    def in_words(self, names: Mapping[str, str] | None = None) -> list[str]:
        """What it does, in phrases; `names` of annotators by id, who are only counted without."""
        said = [_HOW[self.aggregation]]
        if self.min_strength is not None:
            too = ", or of unknown strength" if self.unknown_strength else ""
            said.append(
                f"strength {self.min_strength} or more{too}" if self.min_strength < 3 else f"strength 3{too}"
            )
        if not self.ties:
            said.append("no ties")
        if self.min_agreement is not None:
            too = ", or a single vote" if self.keep_single else ""
            said.append(f"agreement of {100 * self.min_agreement:g} % or more{too}")
        if self.exclude:
            many = "1 annotator" if len(self.exclude) == 1 else f"{len(self.exclude)} annotators"
            listed = ", ".join((names or {}).get(who, who) for who in self.exclude)
            said.append(f"without {many if names is None else listed}")
        if self.kinds:
            said.append(f"votes by {' and '.join(self.kinds)} annotators")
        said += [
            f"{name} {value}" for name in ("source", "tag") if (value := getattr(self, name)) is not None
        ]
        if self.purposes != PURPOSES:
            said.append(f"purpose {' or '.join(self.purposes)}")
        said += [f"{name} {day}" for name in ("since", "until") if (day := getattr(self, name)) is not None]
        return said


@dataclass(frozen=True)
class View:
    """A saved definition. `weights`, by annotator id, are there where votes are weighted by reliability.

    They are kept as they were when the view was saved, so that training twice trains on the same.
    """

    name: str
    definition: Definition = field(default_factory=Definition)
    weights: Mapping[str, float] | None = None
    created_by: str | None = None
    created_at: datetime.datetime | None = None

    def record(self) -> dict[str, Any]:
        """As JSON values, for a run's record; the weights go with the rows."""
        made = {} if self.created_at is None else {"saved_at": f"{self.created_at:%Y-%m-%dT%H:%M:%S}Z"}
        return {"name": self.name, **self.definition.as_dict(), **made}

    def narrowed(self, annotators: AnnotatorKind | Literal["all"], source: str | None) -> "View":
        """The view, of one kind of annotators or one source only; a UserError where it has none of that."""
        kinds, definition = self.definition.kinds, self.definition
        if annotators != "all":
            if kinds and annotators not in kinds:
                raise UserError(
                    f"the view '{self.name}' takes votes by {' and '.join(kinds)} annotators, "
                    f"--annotators {annotators} leaves none of them"
                )
            definition = replace(definition, kinds=(annotators,))
        if source is not None:
            if definition.source not in (None, source):
                raise UserError(
                    f"the view '{self.name}' takes the source '{definition.source}', --source {source} leaves nothing"
                )
            definition = replace(definition, source=source)
        return replace(self, definition=definition)


def checked_name(name: str) -> str:
    """The name, or a UserError that says what a name is."""
    if not _NAME.fullmatch(name):
        raise UserError(
            f"a view's name has up to 64 letters, digits, hyphens and underscores, and starts with a letter or a "
            f"digit, got {name[:80]!r}"
        )
    return name


def views(store: AnyStore) -> list[View]:
    """Every saved view, by name."""
    rows = store.rows(
        "SELECT name, definition, weights, created_by, created_at FROM training_view ORDER BY name"
    )
    return [
        View(
            row["name"], Definition.of(json.loads(row["definition"])),
            json.loads(row["weights"]) if row["weights"] else None, row["created_by"], row["created_at"],
        )
        for row in rows
    ]  # fmt: skip


def view(store: AnyStore, name: str) -> View:
    """The view of this name; a UserError lists those there are."""
    known = {one.name: one for one in views(store)}
    if name not in known:
        there = f"there are {', '.join(known)}" if known else "none is saved yet"
        raise UserError(f"there is no view '{name[:80]}': {there} (palate view lists and saves them)")
    return known[name]


def annotator_ids(store: AnyStore, wanted: Sequence[str]) -> tuple[str, ...]:
    """The ids of annotators who are named by id or by name, each once; a UserError for one who is not there.

    A name that two kinds of annotators have means both.
    """
    found: dict[str, None] = {}
    people = store.rows("SELECT id, name FROM annotator ORDER BY name, id") if wanted else []
    for one in wanted:
        ids = [row["id"] for row in people if one in (row["id"], row["name"])]
        if not ids:
            raise UserError(f"there is no annotator '{one[:80]}' (palate stats lists them)")
        found |= dict.fromkeys(ids)
    return tuple(found)


def names_of(store: AnyStore, ids: Sequence[str]) -> dict[str, str]:
    """Names by annotator id."""
    rows = store.rows("SELECT id, name FROM annotator WHERE id IN (SELECT unnest(?::VARCHAR[]))", [list(ids)])
    return {row["id"]: row["name"] for row in rows}


def _read(name: str, value: Any) -> Any:
    """A JSON value as a definition holds it."""
    right = False
    if name in ("exclude", "kinds", "purposes"):
        if isinstance(value, list | tuple) and all(isinstance(one, str) for one in value):
            return tuple(value)
    elif name in ("since", "until"):
        right = value is None
        with suppress(ValueError, TypeError):
            return datetime.date.fromisoformat(value)
    elif name in ("unknown_strength", "ties", "keep_single"):
        right = isinstance(value, bool)
    elif name == "min_strength":
        right = value is None or (isinstance(value, int) and not isinstance(value, bool))
    elif name == "min_agreement":
        right = value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    else:
        right = isinstance(value, str) or (value is None and name != "aggregation")
    if right:
        return value
    raise UserError(f"the setting '{name}' of a view can't be {value!r}"[:200])


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
