"""From rows of votes to reliability, and from reliability to flips and weights; what is too little, and what is refused."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palate.config import UserError
from palate.data.records import Annotator
from palate.data.store import Store
from palate.data.training_views import Definition, View
from palate.reward.annotators import (
    ADJUDICATED,
    MOST_FLIP,
    Annotators,
    Person,
    changed,
    estimate,
    load,
    names,
    why_not,
)

Features = dict[str, np.ndarray]
SIZE = 12
GOOD = Person(100, 0.9, 0.8, 0.95, 0.5, 0.1, -0.2, 0.1)
BAD = Person(50, 0.3, 0.1, 0.45, 0.0, 0.1, 0.0, 0.1)
DULL = Person(50, 0.55, 0.4, 0.7, 0.0, 0.1, 0.0, 0.1)
KNOWN = Annotators({"good": GOOD, "bad": BAD, "dull": DULL}, 0.5, 200)


def row(texts: list[str], pairs: list[dict[str, Any]], number: int = 0) -> dict[str, Any]:
    ids = [f"{number}-{place}" for place in range(len(texts))]
    return {"comparison_id": f"c{number}", "completion_ids": ids, "completions": texts, "pairs": pairs}


def pair(who: str, winner: int = 0, loser: int = 1, **more: Any) -> dict[str, Any]:
    plain = {
        "winner": winner,
        "loser": loser,
        "tie": False,
        "weight": 1.0,
        "vote_id": f"{who}-{winner}{loser}",
    }
    return {**plain, "annotator_id": who, "shown_first": None, "adjudicated": False, **more}


def crowd(
    votes: int, etas: dict[str, float], seed: int, side: dict[str, float] | None = None, k: int = 2
) -> tuple[list[dict[str, Any]], Features]:
    """Rankings of k completions by a linear taste, one annotator each; who errs swaps a pair at random."""
    rng = np.random.default_rng(seed)
    taste, rows, features = rng.normal(size=SIZE), [], {}
    for number in range(votes):
        texts = ["x" * int(rng.integers(20, 200)) for _ in range(k)]
        vectors = rng.normal(size=(k, SIZE))
        who = list(etas)[number % len(etas)]
        shown = rng.permutation(k)
        pairs = []
        for a in range(k):
            for b in range(a + 1, k):
                first_is_a = bool(np.flatnonzero(shown == a)[0] < np.flatnonzero(shown == b)[0])
                better = vectors[a] @ taste > vectors[b] @ taste
                seen = math.log(etas[who] / (1 - etas[who])) * (1 if better else -1)
                seen += (side or {}).get(who, 0.0) * (1 if first_is_a else -1)
                says_a = rng.random() < 1 / (1 + math.exp(-seen))
                won, lost = (a, b) if says_a else (b, a)
                more = {
                    "vote_id": f"v{number}",
                    "shown_first": first_is_a == says_a,
                    "weight": 2 / (k * (k - 1)),
                }
                pairs.append(pair(who, won, lost, **more))
        rows.append(row(texts, pairs, number))
        features |= dict(zip(rows[-1]["completion_ids"], vectors, strict=True))
    return rows, features


def test_who_is_bad_is_found_without_overlap() -> None:
    etas = {"a": 0.95, "b": 0.95, "c": 0.95, "d": 0.7, "spam": 0.5, "contrary": 0.08}
    rows, features = crowd(900, etas, 0)
    found = estimate(rows, features)
    assert found is not None
    assert found.votes == 900 and {
        who: person.votes for who, person in found.people.items()
    } == dict.fromkeys(etas, 150)
    order = sorted(etas, key=lambda who: found.people[who].eta)
    assert order[:3] == ["contrary", "spam", "d"]
    inside = [person.low <= etas[who] <= person.high for who, person in found.people.items()]
    assert sum(inside) >= 5  # 95 % intervals; how often they hold is counted in test_annotator_model.py
    said = found.lines({"contrary": "Connie"})
    assert said[0].startswith("annotators, judged from 900 decided pairs")
    assert said[1].startswith("  Connie: ") and said[1].endswith(
        "150 pairs; below chance: their votes are left out"
    )
    assert len(said) == 7


def test_a_lean_to_the_side_is_found_and_counts_in_flips() -> None:
    rows, features = crowd(1200, {"a": 0.9, "b": 0.9, "left": 0.9}, 1, {"left": 1.5})
    found = estimate(rows, features)
    assert found is not None
    person = found.people["left"]
    assert person.side > 0.8 and abs(found.people["a"].side) < 0.5
    applied = found.applied(rows, "flips")
    flips = {
        shown: np.mean([p["flip"] for r in applied for p in r["pairs"] if p["annotator_id"] == "left" and p["shown_first"] is shown])
        for shown in (True, False)
    }  # fmt: skip
    assert (
        flips[True] > flips[False] + 0.05
    )  # naming the first shown is worth less than naming the other against it


def test_rankings_of_four_tell_more_than_votes_on_two() -> None:
    etas = {"a": 0.95, "b": 0.6}
    wide = estimate(*crowd(60, etas, 2))
    narrow = estimate(*crowd(60, etas, 2, k=4))
    assert wide is not None and narrow is not None
    spans = [sum(p.high - p.low for p in found.people.values()) for found in (wide, narrow)]
    assert spans[1] < spans[0]
    assert narrow.votes == 360


def test_flips_by_hand() -> None:
    texts = ["a" * 29, "b" * 9]  # log(30 / 10) is 2.197 standard deviations of 0.5
    rows = [
        row(texts, [
            pair("good"), pair("good", shown_first=True), pair("good", 1, 0, shown_first=True),
            pair("good", tie=True), pair("bad"), pair("dull"), pair("nobody"), pair("dull", adjudicated=True),
        ])
    ]  # fmt: skip
    applied = KNOWN.applied(rows, "flips")
    longer = math.log(3) / 0.5

    def flip(lean: float) -> float:
        a = math.log(9)
        right, wrong = 1 / (1 + math.exp(-a - lean)), 1 / (1 + math.exp(a - lean))
        return wrong / (right + wrong)

    pairs = applied[0]["pairs"]
    assert [p["flip"] for p in pairs] == pytest.approx(
        [
            flip(-0.2 * longer), flip(0.5 - 0.2 * longer), flip(0.5 + 0.2 * longer), 0.1, MOST_FLIP, MOST_FLIP,
            (100 * 0.1 + 50 * 0.7 + 50 * 0.45) / 200, 0.1,
        ]
    )  # fmt: skip
    assert [p["weight"] for p in pairs] == [1, 1, 1, 1, 0, 1, 1, 1]
    assert all("flip" not in p and p["weight"] == 1 for p in rows[0]["pairs"])  # what came in stays
    assert changed(rows, applied).startswith("12.5 % of the weight is left out; of the rest ")


def test_weights_by_hand() -> None:
    rows = [row(["aaaa", "bbbb"], [pair("good"), pair("bad"), pair("dull")])]
    applied = KNOWN.applied(rows, "weights")
    found = [p["weight"] for p in applied[0]["pairs"]]
    assert found == pytest.approx(
        [3 * 0.8 / 1.0, 0, 3 * 0.2 / 1.0]
    )  # 1 - 2 flip, flips end at 0.4; the sum stays 3
    assert all("flip" not in p for p in applied[0]["pairs"])
    assert changed(rows, applied) == "33.3 % of the weight is left out, 46.7 % moved to other votes"


def test_weights_of_the_contrary_alone_are_nothing() -> None:
    rows = [row(["a", "b"], [pair("bad")])]
    assert KNOWN.applied(rows, "weights")[0]["pairs"][0]["weight"] == 0
    assert KNOWN.applied([], "flips") == []


def test_adjudicated_votes_are_one_voice_and_no_part_of_their_lead() -> None:
    rows, features = crowd(300, {"a": 0.9, "b": 0.9}, 3)
    for number in range(40):
        rows[number]["pairs"].append({**rows[number]["pairs"][0], "vote_id": f"l{number}", "annotator_id": "a", "adjudicated": True})  # fmt: skip
    found = estimate(rows, features)
    assert found is not None
    assert {who: person.votes for who, person in found.people.items()} == {
        "a": 150,
        "b": 150,
        ADJUDICATED: 40,
    }


def test_the_same_pair_again_counts_once_and_others_on_it_share_it() -> None:
    rows, features = crowd(200, {"a": 0.9, "b": 0.9}, 4)
    again = [{**r, "comparison_id": r["comparison_id"] + "again", "pairs": [{**p, "vote_id": p["vote_id"] + "again"} for p in r["pairs"]]} for r in rows]  # fmt: skip
    once, twice = estimate(rows, features), estimate([*rows, *again], features)
    assert once is not None and twice is not None
    assert once.record() == twice.record()


def test_too_little_is_said() -> None:
    one = [row(["a", "b"], [pair("ann", vote_id=f"v{i}")], i) for i in range(50)]
    assert (
        why_not(one) == "annotators are not told apart: there is one, so there is nobody to hold against them"
    )
    two = [*one, row(["a", "b"], [pair("bob")], 60)]
    assert why_not(two) == "annotators are not told apart: 1 of 2 decided 10 comparisons or more, it takes 2"
    ties = [row(["a", "b"], [pair("ann", tie=True)])]
    assert (
        why_not(ties) == why_not([]) == "annotators are not told apart: no vote prefers one answer to another"
    )
    assert estimate(two, {}) is None and estimate([], {}) is None
    assert why_not(crowd(40, {"a": 0.9, "b": 0.9}, 5)[0]) is None


@pytest.mark.parametrize(("how", "says"), [("majority", "a majority view"), ("reliability", "weighs them")])
def test_views_that_have_judged_already(how: Any, says: str) -> None:
    rows = crowd(40, {"a": 0.9, "b": 0.9}, 6)[0]
    said = why_not(rows, View("v", Definition(how)))
    assert said is not None and says in said
    assert why_not(rows, View("v", Definition("vote"))) is None


def test_features_that_are_none_are_refused_and_missing_ones_passed_over() -> None:
    rows, features = crowd(60, {"a": 0.9, "b": 0.9}, 7)
    del features["0-1"]
    found = estimate(rows, features)
    assert found is not None and found.votes == 59
    features["1-0"] = np.full(SIZE, np.nan)
    with pytest.raises(UserError, match="some features of these votes are not finite"):
        estimate(rows, features)


def test_empty_and_equal_texts_and_no_side() -> None:
    rows, features = crowd(60, {"a": 0.9, "b": 0.9}, 8)
    for one in rows:
        one["completions"] = ["", ""]
        for p in one["pairs"]:
            p["shown_first"] = None
    found = estimate(rows, features)
    assert found is not None and found.length_sd == 0
    assert all(0 <= p["flip"] <= MOST_FLIP for r in found.applied(rows, "flips") for p in r["pairs"])
    assert all(person.side == person.length == 0 for person in found.people.values())


def test_saved_and_loaded(tmp_path: Path) -> None:
    KNOWN.save(tmp_path)
    assert load(tmp_path) == KNOWN
    assert json.loads((tmp_path / "annotators.json").read_text()) == KNOWN.record()
    with pytest.raises(UserError, match="were not told apart"):
        load(tmp_path / "nowhere")
    (tmp_path / "annotators.json").write_text("{}")
    with pytest.raises(UserError, match="is damaged"):
        load(tmp_path)


def test_long_lists_are_cut() -> None:
    many = Annotators({f"p{i}": GOOD for i in range(30)}, 1.0, 3000)
    assert len(many.lines()) == 22 and many.lines()[-1] == "  and 10 more, all of them more reliable"


def test_names(tmp_path: Path) -> None:
    ann, rule = Annotator("Ann"), Annotator("vivid", "rule")
    with Store(tmp_path / "palate.duckdb") as store:
        store.add_annotators([ann, rule])
        assert names(store) == {ann.id: "Ann", rule.id: "vivid (rule)", ADJUDICATED: "adjudicated votes"}
