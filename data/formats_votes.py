"""Verdicts in the words of many files: choices, rankings, ranks, scores, several annotators per row.

Everything becomes tiers: `((1,), (0, 2))` says that answer 1 is best and the other two are equal.
"""

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, get_args

from palate.data.formats_item import BadRow, Item, Judgement, Row, as_text, first, loaded, missing, plain
from palate.data.records import AnnotatorKind

TIES = {"tie", "equal", "same", "draw", "both", "both_good", "tied"}
ALL_BAD = {"all_bad", "both_bad", "bothbad", "tie (bothbad)", "neither", "none"}
SKIPS = {"skip", "skipped", "unsure"}
# columns that say who judged and how; they belong to a vote, not to the prompt
VOTE_COLUMNS = frozenset(
    [
        "annotator",
        "annotator_id",
        "judge",
        "worker",
        "rater",
        "annotator_kind",
        "time",
        "created_at",
        "timestamp",
        "tstamp",
        "seconds",
        "seconds_visible",
        "seconds_active",
        "reason",
        "rationale",
        "explanation",
        "strength",
        "flags",
        "criteria",
        "vote_id",
    ]
)
RANKED_BY = ("ranking", "ranks", "scores")
KINDS: tuple[AnnotatorKind, ...] = get_args(AnnotatorKind)
_WHO = ("annotator", "annotator_id", "judge", "worker", "rater")
_SEPARATE = re.compile(r"[\s_-]+")


def judgement(row: Row, names: Sequence[str]) -> Judgement:
    """The verdict of one annotator on answers called `names`, from the columns of `row`."""
    found = Judgement()
    stated = first(row, "verdict")
    order = _order(row, names)
    choice = row.get("choice")
    if order is not None:
        found.tiers = order
    elif not missing(choice):
        decide(found, choice, names)
    elif stated in ALL_BAD | SKIPS:
        decide(found, stated, names)
    else:
        raise BadRow(f"a judgement needs a choice ({', '.join(names)} or tie) or a ranking")
    if found.verdict == "ranked" and len(found.tiers) == 1:
        found.verdict = "tie"
    details(found, row)
    _own(found, row)
    return found


def _own(found: Judgement, row: Row) -> None:
    """What only our own export of votes writes: a vote keeps its id, so importing it again adds nothing."""
    if not missing(row.get("kind")):
        found.kind = _kind(row["kind"])
    found.id = _text_or_none(row, "vote_id") or ""
    found.assignment_id = _text_or_none(row, "assignment_id") or ""
    found.supersedes = _text_or_none(row, "supersedes")
    found.edited_text = _text_or_none(row, "edited_text")
    found.adjudicated = row.get("adjudicated") is True
    version = first(row, "guideline_version")
    found.guideline_version = None if version is None else int(number(version, "guideline_version"))


def decide(found: Judgement, choice: Any, names: Sequence[str]) -> None:
    """Set tiers and verdict from one word: the name of an answer, tie, all_bad or skip."""
    word = as_text(choice, "choice").strip()
    everyone = tuple(range(len(names)))
    if word in names or word.lower() in names:
        if len(names) > 2:
            raise BadRow(f"choice {word!r} does not say how the other {len(names) - 1} rank; give a ranking")
        best = list(names).index(word if word in names else word.lower())
        found.tiers = ((best,), (1 - best,))
        return
    lowered = word.lower()
    underscored = _SEPARATE.sub("_", lowered)
    if lowered in ALL_BAD or underscored in ALL_BAD:
        found.verdict = "all_bad"
    elif underscored in TIES:
        found.verdict, found.tiers = "tie", (everyone,)
    elif underscored in SKIPS:
        found.verdict = "skip"
    else:
        raise BadRow(f"choice {word!r} is none of {', '.join(names)}, tie")


def _order(row: Row, names: Sequence[str]) -> tuple[tuple[int, ...], ...] | None:
    """Tiers from `ranking` (best first), `ranks` (one per answer, smallest best) or `scores` (largest best)."""
    ranking = first(row, "ranking")
    if ranking:
        return _tiers(ranking, names)
    for column, sign in (("ranks", 1), ("scores", -1)):
        values = first(row, column)
        if values is not None:
            return _by_value(values, sign, column, len(names))
    return None


def _by_value(values: Any, sign: int, column: str, count: int) -> tuple[tuple[int, ...], ...]:
    if not isinstance(values, list) or len(values) != count:
        raise BadRow(
            f"{column} must hold one number for each of the {count} answers, it is {str(values)[:60]}"
        )
    numbers = {place: sign * number(v, column) for place, v in enumerate(values) if not missing(v)}
    return grouped(numbers)


def grouped(values: dict[int, float]) -> tuple[tuple[int, ...], ...]:
    """Tiers of those with equal values, the smallest first."""
    return tuple(tuple(p for p, v in values.items() if v == level) for level in sorted(set(values.values())))


def _tiers(ranking: Any, names: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    if not isinstance(ranking, list) or not ranking:
        raise BadRow(f"ranking must be a list, best first; it is {str(ranking)[:60]!r}")
    tiers = [tier if isinstance(tier, list) else [tier] for tier in ranking]
    flat = [member for tier in tiers for member in tier]
    where = _places(flat, names)
    if len(set(where)) < len(where):
        raise BadRow(f"ranking {str(ranking)[:60]} names an answer twice")
    places = iter(where)
    return tuple(tuple(next(places) for _ in tier) for tier in tiers if tier)


def _places(members: list[Any], names: Sequence[str]) -> list[int]:
    """Names, or numbers counted from 0, or from 1 when all of 1..n are there."""
    known = {name: place for place, name in enumerate(names)}
    if all(as_text(m, "ranking") in known for m in members):
        return [known[as_text(m, "ranking")] for m in members]
    if all(isinstance(m, int) and not isinstance(m, bool) for m in members):
        start = 1 if sorted(members) == list(range(1, len(names) + 1)) else 0
        if all(0 <= m - start < len(names) for m in members):
            return [m - start for m in members]
    raise BadRow(f"ranking {str(members)[:60]} does not name the answers ({', '.join(names)})")


def details(found: Judgement, row: Row) -> None:
    """Who, when, how long and why, as far as the columns say it."""
    if VOTE_COLUMNS.isdisjoint(row):
        return
    found.annotator = found.annotator or _text_or_none(row, *_WHO)
    if not missing(row.get("annotator_kind")):
        found.kind = _kind(row["annotator_kind"])
    found.time = moment(first(row, "time", "created_at", "timestamp", "tstamp"))
    found.rationale = _text_or_none(row, "reason", "rationale", "explanation")
    found.strength = _strength(first(row, "strength"))
    found.seconds_visible = _seconds(first(row, "seconds", "seconds_visible"))
    found.seconds_active = _seconds(first(row, "seconds_active"))
    criteria, flags = first(row, "criteria"), first(row, "flags")
    if isinstance(criteria, str):
        criteria = loaded(criteria)
    if isinstance(criteria, dict):
        found.criteria = plain(criteria)
    if isinstance(flags, list):
        found.flags = tuple(as_text(flag, "a flag") for flag in flags)


def _kind(value: Any) -> AnnotatorKind:
    for kind in KINDS:
        if value == kind:
            return kind
    raise BadRow(f"annotator kind {str(value)[:40]!r} is none of {', '.join(KINDS)}")


def _text_or_none(row: Row, *names: str) -> str | None:
    value = first(row, *names)
    return None if value is None else as_text(value, names[0]) or None


def number(value: Any, name: str) -> float:
    """A finite number, also when it is written as text."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        found = math.nan
    if not math.isfinite(found):
        raise BadRow(f"{name} {str(value)[:40]!r} is not a number")
    return found


def _seconds(value: Any) -> float | None:
    if value is None or (isinstance(value, str) and value.strip().lower() in ("", "nan")):
        return None
    seconds = number(value, "seconds")
    if seconds < 0:
        raise BadRow(f"seconds {seconds:g} is negative")
    return seconds


def _strength(value: Any) -> int | None:
    if value is None:
        return None
    strength = number(value, "strength")
    if strength not in (0, 1, 2, 3):
        raise BadRow(f"strength {str(value)[:40]!r} is not one of 0, 1, 2, 3")
    return int(strength)


def moment(value: Any) -> datetime | None:
    """A point in time as UTC without a zone: ISO 8601, or Unix seconds or milliseconds."""
    if value is None:
        return None
    try:
        if isinstance(value, datetime):
            found = value
        elif isinstance(value, int | float) or re.fullmatch(r"\d+(\.\d+)?", str(value)):
            seconds = float(value)
            found = datetime.fromtimestamp(seconds / 1000 if seconds > 1e11 else seconds, UTC)
        else:
            found = datetime.fromisoformat(str(value))
        return found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo else found
    except (ValueError, OverflowError, OSError) as error:
        raise BadRow(f"time {str(value)[:40]!r} is neither ISO 8601 nor Unix seconds") from error


def check_answers(item: Item) -> None:
    """What a comparison must fulfil: 2 to 9 answers, all different to a reader."""
    if not 2 <= len(item.answers) <= 9:
        raise BadRow(f"{len(item.answers)} answers to compare; it takes 2 to 9")
    seen: dict[str, int] = {}
    for place, answer in enumerate(item.answers):
        other = seen.setdefault(answer.text.strip(), place)
        if other != place:
            raise BadRow(f"answers {other + 1} and {place + 1} are the same text: nothing to prefer")
    for judged in item.judgements:
        if judged.verdict in ("ranked", "tie") and sum(len(tier) for tier in judged.tiers) < 2:
            raise BadRow("a ranking must name at least two answers")
