"""What is looked for in Data, as a value and as a query string: one for the screen, the routes and the exports.

    query = read({"q": 'refund "credit card"', "tag": "billing", "sort": "match"})
    written(query)                  "?tag=billing&q=refund+%22credit+card%22&sort=match"

A condition on votes (annotator, verdict, flag, rationale, adjudicated=yes, days) keeps items that have one vote for
which all of them hold. Kinds of annotators never mix, here neither: `kind` is one, people by default.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args
from urllib.parse import urlencode

from palate.config import UserError
from palate.data.records import Purpose, Verdict
from palate.labeling.ballots import FLAGS
from palate.labeling.statistics.formatting import one_line
from palate.labeling.statistics.report import asked_of, scope_of
from palate.labeling.statistics.scope import Scope

Rows = Literal["items", "votes"]
Sort = Literal["newest", "disagreement", "match"]
FIELDS = (
    "kind", "source", "tag", "since", "until", "q", "model", "annotator", "verdict", "flag", "purpose", "disagreement",
    "rationale", "adjudicated", "answered", "item", "prompt", "rows", "sort",
)  # fmt: skip
LONGEST, MOST_WORDS = 500, 8
_WORDS = re.compile(r'"([^"]*)"?|(\S+)')
_YES = {"yes": True, "no": False}


@dataclass(frozen=True)
class Query:
    """Conditions that hold together, and the order of what is found."""

    scope: Scope = field(default_factory=Scope)
    text: str = ""  # all its words are in the prompt, the answers or the rationales; "a phrase" in quotes
    model: str | None = None  # one of the answers is by it
    annotator: str | None = None  # name or id
    verdict: Verdict | None = None
    flag: str | None = None  # one of FLAGS, or "any"
    purpose: Purpose | None = None
    disagreement: float | None = None  # at least so much, 0..1; see statistics.disagreement
    rationale: bool | None = None  # one was given
    adjudicated: bool | None = None
    answered: bool | None = None  # has a vote of this kind
    item: str | None = None  # a comparison's id
    prompt: str | None = None  # a prompt's id
    rows: Rows = "items"
    sort: Sort = "newest"

    @property
    def words(self) -> tuple[str, ...]:
        """What must be found, each somewhere."""
        return words(self.text)

    @property
    def about_votes(self) -> bool:
        """Whether some condition is on single votes."""
        asked = (self.annotator, self.verdict, self.flag, self.rationale, self.scope.since, self.scope.until)
        return any(value is not None for value in asked) or self.adjudicated is True


def words(text: str) -> tuple[str, ...]:
    """The words and the quoted phrases of a text, each once, whatever its case."""
    found = [" ".join((phrase or word).split()) for phrase, word in _WORDS.findall(text)]
    return tuple({word.casefold(): word for word in found if word}.values())


def read(asked: Mapping[str, str | None]) -> Query:
    """The query of a query string's fields; a UserError names the one that is wrong."""
    if unknown := [name for name in asked if name not in FIELDS]:
        raise UserError(f"there is no field {_said(unknown[0])} to search by; there are {', '.join(FIELDS)}")
    given = {name: value.strip() for name, value in asked.items() if value is not None and value.strip()}
    for name, value in given.items():
        if len(value) > LONGEST:
            raise UserError(f"{name} takes at most {LONGEST} characters, got {len(value):,}")
    text = given.get("q", "")
    if len(words(text)) > MOST_WORDS:
        raise UserError(
            f"q takes at most {MOST_WORDS} words, got {len(words(text))}; a phrase in quotes is one"
        )
    return Query(
        scope=scope_of(given),
        text=text,
        model=given.get("model"),
        annotator=given.get("annotator"),
        verdict=_one_of("verdict", given, get_args(Verdict)),
        flag=_one_of("flag", given, ("any", *FLAGS)),
        purpose=_one_of("purpose", given, get_args(Purpose)),
        disagreement=_share(given),
        rationale=_yes_or_no("rationale", given),
        adjudicated=_yes_or_no("adjudicated", given),
        answered=_yes_or_no("answered", given),
        item=given.get("item"),
        prompt=given.get("prompt"),
        rows=_one_of("rows", given, get_args(Rows)) or "items",
        sort=_one_of("sort", given, get_args(Sort)) or ("match" if text else "newest"),
    )


def fields_of(query: Query) -> dict[str, str]:
    """What `read` makes this query of; what goes without saying is left out."""
    said: dict[str, object | None] = {name: value for name, value in asked_of(query.scope).items() if value}
    if query.scope.kind == "human":
        del said["kind"]
    said["q"] = query.text
    for name in ("model", "annotator", "verdict", "flag", "purpose", "disagreement", "item", "prompt"):
        said[name] = getattr(query, name)
    for name in ("rationale", "adjudicated", "answered"):
        value = getattr(query, name)
        said[name] = None if value is None else "yes" if value else "no"
    said["rows"] = query.rows if query.rows != "items" else None
    said["sort"] = query.sort if query.sort != ("match" if query.text else "newest") else None
    return {name: str(value) for name, value in said.items() if value not in (None, "")}


def written(query: Query) -> str:
    """The query as a query string with its question mark; empty for everything there is."""
    fields = fields_of(query)
    return f"?{urlencode(fields)}" if fields else ""


def _one_of(name: str, given: Mapping[str, str], known: tuple[Any, ...]) -> Any:
    value = given.get(name)
    if value is not None and value not in known:
        raise UserError(f"{name} is one of {', '.join(known)}, got {_said(value)}")
    return value


def _yes_or_no(name: str, given: Mapping[str, str]) -> bool | None:
    value = given.get(name)
    if value is not None and value not in _YES:
        raise UserError(f"{name} is yes or no, got {_said(value)}")
    return None if value is None else _YES[value]


def _share(given: Mapping[str, str]) -> float | None:
    value = given.get("disagreement")
    if value is None:
        return None
    try:
        found = float(value)
    except ValueError:
        found = -1.0
    if not 0 <= found <= 1:
        raise UserError(f"disagreement is a number from 0 to 1, got {_said(value)}")
    return found


def _said(text: str) -> str:
    return repr(one_line(text, 40))
