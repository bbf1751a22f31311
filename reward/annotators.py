"""How reliable the annotators of some votes are, and what that does to the pairs that training takes.

    found = estimate(rows, features)                # None: too little is known (why_not says why)
    rows = found.applied(rows, "flips")             # each pair's `flip`: how likely its vote names the wrong one
    found.save(run.path); load(run.path)            # annotators.json: DPO takes the flips that the reward run found

The model is `palate.annotator_model`: reward, reliability, lean to the side and lean to length at once, on frozen
features. Deliberate choices:
1. Annotators below a half (eta < 0.5) are left out: their pairs get weight 0. Turning a vote around would make an
   answer that nobody gave, and it may be a taste of their own.
2. Other flips end at MOST_FLIP: beyond, a vote says next to nothing, and losses that divide by 1 - 2 flip explode.
3. Votes of a lead who had seen the others' (adjudicated) are one voice of their own in the estimate; in training they
   count as the most reliable annotator's, without a lean.
4. Of somebody's votes on the same two completions the first counts in the estimate.
5. A ranking of K completions counts as K - 1 votes in the estimate: it decides more than one pair, less than C(K, 2)
   independent ones.
6. Rules and models are annotators like any other here; whose votes are taken is decided before (--annotators).
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from palate.annotator_model import AnnotatorModel, Votes, fit
from palate.config import UserError
from palate.data.any_store import AnyStore
from palate.data.training_views import View

FILE = "annotators.json"
MOST_FLIP = 0.4
ENOUGH_VOTES = 10  # of one annotator, on which something can be said about them
ENOUGH_PEOPLE = 2
ADJUDICATED = "adjudicated"  # stands for everybody's adjudicated votes; ids are digests, so it is nobody's
SHOWN = 20  # annotators in the report, the least reliable first
Row = dict[str, Any]


@dataclass(frozen=True)
class Person:
    """What is known about one annotator; the leans with their standard deviations, in log-odds."""

    votes: int  # decided pairs in the estimate
    eta: float  # how often they name the better one, 0..1
    low: float  # 95 % interval
    high: float
    side: float  # to the answer shown first
    side_sd: float
    length: float  # to the longer answer, beyond what all share, per standard deviation of log length
    length_sd: float

    def flip(self, side: float, length: float) -> float:
        """How likely a vote is wrong whose winner was shown first (side 1; last -1, unknown 0) and is `length`
        standard deviations longer than its loser. As AnnotatorModel.flips."""
        a = math.log(self.eta / (1 - self.eta))
        lean = self.side * side + self.length * length
        return 1 / (1 + math.exp(min(_softplus(a - lean) - _softplus(-a - lean), 700.0)))


@dataclass(frozen=True)
class Annotators:
    """Everybody, by annotator id; `length_sd` is one standard deviation of log(1 + characters)."""

    people: Mapping[str, Person]
    length_sd: float
    votes: int  # decided pairs in the estimate, everybody's

    def applied(self, rows: Sequence[Row], how: Literal["flips", "weights"]) -> list[Row]:
        """The same rows, in the same order, with every pair's `flip` (0..MOST_FLIP) or `weight` set.

        `weights` multiplies by 1 - 2 flip, which is the pull of a flipped vote's likelihood on an undecided pair, and
        then by a constant that keeps the sum of all weights. In both, pairs of annotators below a half weigh 0, so a
        row may weigh nothing at all: leave it out of training.
        """
        flips = [[self._flip(row, pair) for pair in row["pairs"]] for row in rows]
        made = []
        for row, row_flips in zip(rows, flips, strict=True):
            pairs = []
            for pair, flip in zip(row["pairs"], row_flips, strict=True):
                counts = 0.0 if flip > 0.5 else 1.0 if how == "flips" else 1 - 2 * min(flip, MOST_FLIP)
                changed = {"flip": min(flip, MOST_FLIP)} if how == "flips" else {}
                pairs.append({**pair, "weight": pair["weight"] * counts, **changed})
            made.append({**row, "pairs": pairs})
        if how == "weights":
            before, after = _weight(rows), _weight(made)
            for row in made:
                for pair in row["pairs"]:
                    pair["weight"] *= before / after if after else 0.0
        return made

    def record(self) -> dict[str, Any]:
        """Plain values for a run's record and for annotators.json."""
        people = {who: asdict(person) for who, person in self.people.items()}
        return {"people": people, "length_sd": self.length_sd, "votes": self.votes}

    def lines(self, names: Mapping[str, str] | None = None) -> list[str]:
        """For the terminal and the report, the least reliable first; `names` by annotator id."""
        what = "how often each names the better answer, lean to the first shown and to longer ones (log-odds)"
        made = [f"annotators, judged from {self.votes:,} decided pairs and nothing else: {what}"]
        order = sorted(self.people, key=lambda who: self.people[who].eta)
        for who in order[:SHOWN]:
            person = self.people[who]
            known = f"{100 * person.eta:.0f} % [{100 * person.low:.0f}, {100 * person.high:.0f}]"
            note = (
                "; below chance: their votes are left out" if person.eta < 0.5 and who != ADJUDICATED else ""
            )
            made.append(
                f"  {(names or {}).get(who, who)}: {known}, first {person.side:+.1f}, longer {person.length:+.1f}, "
                f"{person.votes} pairs{note}"
            )
        if len(order) > SHOWN:
            made.append(f"  and {len(order) - SHOWN} more, all of them more reliable")
        return made

    def save(self, folder: Path) -> None:
        """Write annotators.json."""
        (folder / FILE).write_text(json.dumps(self.record(), indent=1), encoding="utf-8")

    def _flip(self, row: Row, pair: Row) -> float:
        """How likely this pair's vote is wrong; above a half where its annotator is worse than chance."""
        if pair.get("adjudicated"):
            return min((1 - person.eta for person in self.people.values()), default=0.0)
        person = self.people.get(pair["annotator_id"])
        if person is None:  # nobody knows them: as the others on average
            return _average(self.people)
        if pair["tie"] or person.eta < 0.5:
            return 1 - person.eta
        winner, loser = (_log_length(row["completions"][pair[side]]) for side in ("winner", "loser"))
        return person.flip(_side(pair), (winner - loser) / self.length_sd if self.length_sd else 0.0)


def why_not(rows: Sequence[Row], view: View | None = None) -> str | None:
    """A sentence that says why nothing can be found out about annotators; None when it can."""
    if view is not None and view.definition.aggregation == "majority":
        return "annotators are not told apart: a majority view has already made one answer of their votes"
    if view is not None and view.definition.aggregation == "reliability":
        return "annotators are not told apart again: this view weighs them by reliability already"
    votes: dict[str, set[str]] = {}
    for row in rows:
        for pair in row["pairs"]:
            if not pair["tie"]:
                votes.setdefault(_voice(pair), set()).add(pair["vote_id"])
    votes.pop(ADJUDICATED, None)
    if not votes:
        return "annotators are not told apart: no vote prefers one answer to another"
    if len(votes) == 1:
        return "annotators are not told apart: there is one, so there is nobody to hold against them"
    known = sum(len(theirs) >= ENOUGH_VOTES for theirs in votes.values())
    if known < ENOUGH_PEOPLE:
        return (
            f"annotators are not told apart: {known} of {len(votes)} decided {ENOUGH_VOTES} comparisons or more, it takes "
            f"{ENOUGH_PEOPLE}"
        )
    return None


def estimate(rows: Sequence[Row], features: Mapping[str, NDArray[np.floating]]) -> Annotators | None:
    """What the votes of `rows` (data.preferences) say about who gave them; None when that is too little.

    `features` (D,) by completion id; votes on completions without features are passed over.
    """
    rows = [row for row in rows if all(one in features for one in row["completion_ids"])]
    if why_not(rows) is not None:
        return None
    logs = {
        one: _log_length(text)
        for row in rows
        for one, text in zip(row["completion_ids"], row["completions"], strict=True)
    }
    length_sd = float(np.std(list(logs.values())))
    voices = sorted({_voice(pair) for row in rows for pair in row["pairs"]})
    votes = _votes(rows, features, logs, length_sd, voices)
    found = fit(votes, len(voices))
    return Annotators(
        {voice: _person(found, k) for k, voice in enumerate(voices)}, length_sd, int(found.votes.sum())
    )


def load(folder: Path) -> Annotators:
    """What `save` wrote."""
    try:
        read = json.loads((folder / FILE).read_text(encoding="utf-8"))
        people = {who: Person(**values) for who, values in read["people"].items()}
        return Annotators(people, float(read["length_sd"]), int(read["votes"]))
    except FileNotFoundError as error:
        raise UserError(f"{folder} has no {FILE}: its annotators were not told apart") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / FILE} is damaged: train the reward again") from error


def names(store: AnyStore) -> dict[str, str]:
    """What to call everybody, by annotator id; rules and models are marked."""
    found = {
        str(row["id"]): str(row["name"]) + ("" if row["kind"] == "human" else f" ({row['kind']})")
        for row in store.rows("SELECT id, name, kind FROM annotator")
    }
    return {**found, ADJUDICATED: "adjudicated votes"}


def changed(before: Sequence[Row], after: Sequence[Row]) -> str:
    """What `applied` did, in a sentence."""
    pairs = [
        (old["weight"], new["weight"], new.get("flip"))
        for a, b in zip(before, after, strict=True)
        for old, new in zip(a["pairs"], b["pairs"], strict=True)
    ]
    total = sum(old for old, _, _ in pairs) or 1.0
    silent = sum(old for old, new, _ in pairs if new == 0) / total
    if any(flip is not None for _, _, flip in pairs):
        counting = sum(new for _, new, _ in pairs) or 1.0
        mean = sum(new * (flip or 0.0) for _, new, flip in pairs) / counting
        return f"{100 * silent:.1f} % of the weight is left out; of the rest {100 * mean:.1f} % is taken to be wrong"
    moved = 0.5 * sum(abs(new - old) for old, new, _ in pairs) / total
    return f"{100 * silent:.1f} % of the weight is left out, {100 * moved:.1f} % moved to other votes"


def _votes(
    rows: Sequence[Row],
    features: Mapping[str, NDArray[np.floating]],
    logs: Mapping[str, float],
    length_sd: float,
    voices: Sequence[str],
) -> Votes:
    """The pairs as `annotator_model` takes them; the first completion of a pair is the one whose id is smaller."""
    code = {voice: k for k, voice in enumerate(voices)}
    units: dict[tuple[str, str], int] = {}
    seen: dict[tuple[int, int], str] = {}
    columns: list[tuple[int, int, float, float, float]] = []
    for row in rows:
        for pair in row["pairs"]:
            won, lost = (row["completion_ids"][pair[side]] for side in ("winner", "loser"))
            turned = lost < won
            unit = units.setdefault((lost, won) if turned else (won, lost), len(units))
            who = code[_voice(pair)]
            if seen.setdefault((who, unit), pair["vote_id"]) != pair["vote_id"]:
                continue
            outcome = 0.5 if pair["tie"] else 0.0 if turned else 1.0
            side = -_side(pair) if turned else _side(pair)
            weight = pair["weight"] * (len(row["completion_ids"]) - 1)
            columns.append((unit, who, outcome, side, weight))
    pair_of, by, outcomes, sides, weights = (np.array(column) for column in zip(*columns, strict=True))
    plain = np.array([np.asarray(features[a], np.float64) - features[b] for a, b in units])
    lengths = np.array([logs[a] - logs[b] for a, b in units]) / (length_sd or 1.0)
    # a taste for length that all share is the reward's: free to matter as much as all features together
    spread = float(np.sqrt((plain * plain).sum(1).mean() / 2)) or 1.0
    return Votes(np.column_stack([plain, lengths * spread]), pair_of, by, outcomes, sides, lengths, weights)


def _person(found: AnnotatorModel, k: int) -> Person:
    numbers = (
        np.clip(found.eta, 1e-6, 1 - 1e-6),
        found.low,
        found.high,
        found.side,
        found.side_sd,
        found.length,
        found.length_sd,
    )
    return Person(int(found.votes[k]), *(round(float(values[k]), 6) for values in numbers))


def _voice(pair: Row) -> str:
    return ADJUDICATED if pair.get("adjudicated") else str(pair["annotator_id"])


def _side(pair: Row) -> float:
    shown = pair.get("shown_first")
    return 0.0 if shown is None else 1.0 if shown else -1.0


def _log_length(text: str) -> float:
    return math.log1p(len(text))


def _weight(rows: Sequence[Row]) -> float:
    return float(sum(pair["weight"] for row in rows for pair in row["pairs"]))


def _average(people: Mapping[str, Person]) -> float:
    votes = sum(person.votes for person in people.values())
    wrong = sum(person.votes * (1 - person.eta) for person in people.values())
    return min(MOST_FLIP, wrong / votes) if votes else 0.2


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))
