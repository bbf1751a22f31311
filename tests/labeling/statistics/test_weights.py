"""Weights of reliability: the log-odds of being right, from the same votes that judge annotators elsewhere."""

import math
from collections.abc import Iterator
from pathlib import Path
from random import Random

import numpy as np
import pytest

from palate.config import UserError
from palate.data.facts import Facts
from palate.data.records import (
    Annotator,
    AnnotatorKind,
    Assignment,
    Comparison,
    Completion,
    Prompt,
    Purpose,
    Vote,
)
from palate.data.store import Store
from palate.data.training_views import Definition, view
from palate.labeling.statistics.reliability import Decisions, by_models
from palate.labeling.statistics.scope import Scope
from palate.labeling.statistics.weights import log_odds, save_view, view_weights, weights


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "palate.duckdb") as opened:
        yield opened


@pytest.fixture
def facts(store: Store) -> Iterator[Facts]:
    with Facts(store) as opened:
        yield opened


def cast(
    store: Store, shares: dict[str, float], n: int, kind: AnnotatorKind = "human", strategy: str = "random",
    adjudicated: bool = False, seed: int = 0, purpose: Purpose = "train", k: int = 2,
) -> None:  # fmt: skip
    """Everybody votes on `n` comparisons; each names the better (the longer) answer with their own share."""
    rng = Random(seed)
    prompts = [Prompt(({"role": "user", "content": f"{strategy} {kind} {seed} {i}"},)) for i in range(n)]
    answers = [[Completion(p.id, "x" * (i + 1), f"model {i % 2}") for i in range(k)] for p in prompts]
    comparisons = [
        Comparison(p.id, tuple(c.id for c in made), strategy=strategy, purpose=purpose)
        for p, made in zip(prompts, answers, strict=True)
    ]
    people = {name: Annotator(name, kind) for name in shares}
    assignments = [
        Assignment(c.id, people[name].id, c.completion_ids) for name in shares for c in comparisons
    ]
    votes = []
    for place, assignment in enumerate(assignments):
        name = list(shares)[place // n]
        ids = assignment.display_order
        order = ids[::-1] if rng.random() < shares[name] else ids
        votes.append(Vote(assignment.id, "ranked", tuple((one,) for one in order), adjudicated=adjudicated))
    store.add_all(
        prompts, [c for made in answers for c in made], comparisons, list(people.values()), assignments, votes
    )


def test_log_odds_by_hand() -> None:
    found = log_odds(np.array([0.75, 0.5, 0.2, 0.9, 1.0, 0.0]))
    assert found[:5] == pytest.approx([math.log(3), 0, 0, math.log(9), math.log(999_999)])
    assert found[5] == 0


def test_nobody_has_voted(facts: Facts) -> None:
    assert weights(facts, Scope()) == {}
    assert view_weights(facts, Definition("reliability")) == {}
    assert view_weights(facts, Definition("majority")) is None


def test_the_reliable_weigh_more(store: Store, facts: Facts) -> None:
    cast(store, {"good": 0.95, "fair": 0.75, "other": 0.85, "guesser": 0.5, "contrary": 0.1}, 200)
    facts.refresh()
    found = {
        name: weights(facts, Scope())[Annotator(name).id] for name in ("good", "fair", "guesser", "contrary")
    }
    assert found["good"] > found["fair"] > found["guesser"]
    assert found["good"] == pytest.approx(math.log(0.95 / 0.05), abs=0.6)
    assert found["fair"] == pytest.approx(math.log(0.75 / 0.25), abs=0.4)
    assert found["guesser"] == pytest.approx(0, abs=0.4)
    assert found["contrary"] == 0


def test_they_are_those_of_the_reliability_of_these_votes(store: Store, facts: Facts) -> None:
    """Also of rankings, whose pairs share as many decisions as there are."""
    cast(store, {"a": 0.9, "b": 0.6}, 12, k=3)
    cast(store, {"a": 0.9, "b": 0.6, "c": 0.8}, 20, seed=1)
    rows = store.rows(
        """
        SELECT p.annotator_id, p.winner < p.loser AS a_wins, p.comparison_id || least(winner, loser)
               || greatest(winner, loser) AS unit, m.model AS model_a, o.model AS model_b,
               count(*) OVER (PARTITION BY p.vote_id) AS pairs
        FROM preference p JOIN completion m ON m.id = least(winner, loser)
        JOIN completion o ON o.id = greatest(winner, loser)
        """
    )
    people = sorted({row["annotator_id"] for row in rows})
    units = {row["unit"]: (row["model_a"], row["model_b"]) for row in rows}
    names = list(units)
    decisions = Decisions(
        np.array([names.index(row["unit"]) for row in rows]),
        np.array([people.index(row["annotator_id"]) for row in rows]),
        np.array([row["a_wins"] for row in rows]),
        np.array([1.0 if row["pairs"] == 1 else 2 / 3 for row in rows]),  # three pairs are two decisions
        len(units),
        len(people),
    )
    models = [np.array([int(units[name][side][-1]) for name in names]) for side in (0, 1)]
    eta = by_models(decisions, models[0], models[1], 2).eta
    facts.refresh()
    assert weights(facts, Scope()) == pytest.approx(
        {who: max(0.0, math.log(one / (1 - one))) for who, one in zip(people, eta, strict=True)}, abs=2e-4
    )


def test_what_says_nothing_about_a_person(store: Store, facts: Facts) -> None:
    cast(store, {"ann": 0.9, "bob": 0.8}, 30)
    facts.refresh()
    before = weights(facts, Scope())
    assert set(before) == {Annotator("ann").id, Annotator("bob").id}
    cast(store, {"bob": 0.0, "cy": 0.9}, 30, strategy="uncertainty", seed=1)  # chosen for being close
    cast(store, {"bob": 0.0, "lead": 0.9}, 30, adjudicated=True, seed=2)
    facts.refresh()
    # what the estimate is iterated to: 1e-5 in log-odds, and four digits are kept
    assert weights(facts, Scope()) == pytest.approx(before, abs=2e-4)


def test_kinds_are_judged_apart(store: Store, facts: Facts) -> None:
    cast(store, {"ann": 0.9, "bob": 0.8}, 30)
    facts.refresh()
    people = view_weights(facts, Definition("reliability"))
    cast(store, {"rule": 0.7, "other rule": 0.95}, 30, kind="rule", seed=3)
    facts.refresh()
    found = view_weights(facts, Definition("reliability"))
    assert found is not None and people is not None
    assert set(found) - set(people) == {Annotator(name, "rule").id for name in ("rule", "other rule")}
    assert {who: found[who] for who in people} == pytest.approx(people, abs=2e-4)
    assert view_weights(facts, Definition("reliability", kinds=("human",))) == pytest.approx(people, abs=2e-4)


def test_saving_keeps_the_weights_of_that_moment(store: Store, facts: Facts) -> None:
    cast(store, {"ann": 0.9, "bob": 0.6}, 40)
    facts.refresh()
    saved = save_view(store, facts, "trusted", Definition("reliability"), "the lead")
    assert saved.weights == weights(facts, Scope())
    cast(store, {"ann": 0.1, "bob": 0.9}, 40, seed=4)
    facts.refresh()
    assert view(store, "trusted").weights == saved.weights != weights(facts, Scope())
    assert view(store, "trusted").created_by == "the lead"
    assert save_view(store, facts, "trusted", Definition("reliability")).weights == weights(facts, Scope())
    assert save_view(store, facts, "plain", Definition()).weights is None
    with pytest.raises(UserError, match="a view's name"):
        save_view(store, facts, "no name", Definition())
