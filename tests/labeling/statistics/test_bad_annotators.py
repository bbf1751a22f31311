"""Are bad annotators found, and good ones left alone? Simulated crowds; `python -m` this file prints the figures.

4 of 10 are bad: one votes at random, one against what is right, two are wrong in a quarter of cases; the others are in a
twentieth. AUC is how probably a bad one has a lower reliability than a good one; 0.5 is chance.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from palate.data.facts import Facts
from palate.data.store import Store
from palate.labeling.statistics.assessment import assessment
from palate.labeling.statistics.dawid_skene import Votes, dawid_skene
from palate.labeling.statistics.reliability import by_margins, by_models
from palate.labeling.statistics.scope import Scope
from palate.labeling.statistics.verdicts import TALK
from tests.labeling.statistics.crowds import BAD, GOOD, Crowd, auc, crowd, put, votes

Floats = NDArray[np.float64]
Fit = Callable[[Crowd, NDArray[np.bool_], np.random.Generator], Floats]
SEEDS = 60
IS_BAD = BAD < 0.9


def models(who: Crowd, won: NDArray[np.bool_], rng: np.random.Generator) -> Floats:
    """Votes linked by Bradley-Terry over 8 models."""
    return by_models(who.decisions(won), who.model_a, who.model_b, 8).eta


def rewards(who: Crowd, won: NDArray[np.bool_], rng: np.random.Generator) -> Floats:
    """Votes linked by the true scores of completions."""
    return by_margins(who.decisions(won), who.margin).eta


def rough_rewards(who: Crowd, won: NDArray[np.bool_], rng: np.random.Generator) -> Floats:
    """Scores with an error: they correlate by 0.8 with the true ones, and are scaled for it."""
    error = rng.normal(0, 0.75 * who.margin.std(), len(who.margin))
    return by_margins(who.decisions(won), 0.64 * (who.margin + error)).eta


def confusion(who: Crowd, won: NDArray[np.bool_], rng: np.random.Generator) -> Floats:
    """Dawid and Skene: only what annotators say about the same pairs."""
    label = np.where(won, 2, 0)
    return dawid_skene(
        Votes(who.unit, who.annotator, label, np.ones(len(won)), len(who.margin), who.annotators)
    ).named


def guess(who: Crowd, won: NDArray[np.bool_], rng: np.random.Generator) -> Floats:
    """The control."""
    return rng.random(who.annotators)


@dataclass(frozen=True)
class Setting:
    """A simulation; at least `bar` is asked of its mean AUC, None: it is only told."""

    name: str
    votes: int
    overlap: int
    spread: float
    fit: Fit
    bar: float | None = 0.95
    rewards: bool = False
    independent: bool = (
        False  # votes on one pair are drawn anew from its margin: no answer is simply the better one
    )


SETTINGS = [
    Setting("no overlap, 60 votes, 8 models, spread 1.5", 60, 1, 1.5, models),
    Setting("no overlap, 60 votes, rewards, spread 1.5", 60, 1, 1.5, rewards, rewards=True),
    Setting("no overlap, 60 votes, rewards, spread 1", 60, 1, 1.0, rewards, None, rewards=True),
    Setting("no overlap, 60 votes, rough rewards, spread 1.5", 60, 1, 1.5, rough_rewards, None, rewards=True),
    Setting("no overlap, 60 votes, 8 models, spread 1", 60, 1, 1.0, models, None),
    Setting("no overlap, 60 votes, 8 models, spread 0.6", 60, 1, 0.6, models, None),
    Setting("overlap 3, 30 votes, Dawid-Skene", 30, 3, 1.5, confusion),
    Setting("overlap 3, 30 votes, 8 models", 30, 3, 1.5, models),
    Setting("overlap 3, 30 votes, models alike", 30, 3, 0.0, models),
    Setting("overlap 3, 30 votes, 8 models, votes independent", 30, 3, 1.5, models, None, independent=True),
    Setting("overlap 3, 30 votes, rewards, votes independent", 30, 3, 1.5, rewards, None, True, True),
    Setting("control: guessed", 60, 1, 1.5, guess, None),
]


def aucs(one: Setting, seeds: int = SEEDS) -> Floats:
    """(seeds,) AUC of each crowd."""
    found = []
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        who = crowd(rng, 10, one.votes, one.overlap, one.spread, rewards=one.rewards)
        if one.independent:
            better = rng.random(len(who.unit)) < 1 / (1 + np.exp(-who.margin[who.unit]))
            won = better == (rng.random(len(who.unit)) < BAD[who.annotator])
        else:
            won = votes(rng, who, BAD)
        found.append(auc(-one.fit(who, won, rng), IS_BAD))
    return np.array(found)


@pytest.mark.slow
@pytest.mark.parametrize("one", [one for one in SETTINGS if one.bar is not None], ids=lambda one: one.name)
def test_bad_annotators_are_found(one: Setting) -> None:
    assert one.bar is not None and aucs(one).mean() >= one.bar


def test_a_few_crowds_and_the_control() -> None:
    assert aucs(SETTINGS[0], 10).mean() >= 0.95 and aucs(SETTINGS[7], 10).mean() >= 0.95
    assert 0.45 < aucs(SETTINGS[-1], 400).mean() < 0.55


@pytest.fixture
def facts(tmp_path: Path) -> Iterator[Facts]:
    with Store(tmp_path / "palate.duckdb") as store, Facts(store, threads=1) as opened:
        yield opened


def named(facts: Facts, seed: int, votes_each: int, overlap: int, eta: Floats) -> tuple[list[int], list[str]]:
    """Who is to be talked to in a crowd with a tenth of ties, and why."""
    rng = np.random.default_rng(seed)
    who = crowd(rng, len(eta), votes_each, overlap, 1.5)
    a_wins = votes(rng, who, eta)
    n = len(a_wins)
    won = np.where(rng.random(n) < 0.1, 0, np.where(a_wins, 1, -1))
    put(facts, who, won, active=rng.lognormal(3, 0.6, n), a_first=rng.random(n) < 0.5,
        vote=rng.integers(0, 2**64, n, dtype=np.uint64))  # fmt: skip
    found = assessment(facts, Scope()).verdicts
    talk = [k for k, verdict in enumerate(found) if verdict.verdict == TALK]
    return talk, [found[k].why for k in talk]


@pytest.mark.slow
@pytest.mark.parametrize(("votes_each", "overlap", "eta"), [(60, 1, GOOD), (60, 1, 0.8), (30, 3, 0.8)])
def test_equal_annotators_raise_no_alarm(facts: Facts, votes_each: int, overlap: int, eta: float) -> None:
    """In at most 5 % of crowds anybody at all is named, by any of the comparisons."""
    crowds = [named(facts, seed, votes_each, overlap, np.full(10, eta)) for seed in range(100)]
    assert np.mean([bool(talk) for talk, _ in crowds]) <= 0.05, Counter(
        why for _, reasons in crowds for why in reasons
    )


@pytest.mark.slow
def test_verdicts_name_the_bad_and_spare_the_good(facts: Facts) -> None:
    talk = [named(facts, seed, 200, 3, BAD)[0] for seed in range(30)]
    share = np.mean([np.isin(np.arange(10), each) for each in talk], axis=0)
    assert share[:6].sum() <= 0.05 and share[8:].tolist() == [1, 1] and share[6:8].min() > 0.5


if __name__ == "__main__":
    for setting in SETTINGS:
        each = aucs(setting, 200)
        half = 1.96 * each.std(ddof=1) / np.sqrt(len(each))
        print(f"{setting.name:52} AUC {each.mean():.3f} ± {half:.3f} (95 %, {len(each)} crowds)", flush=True)
