"""Agreement against hand-worked and published examples, four other implementations, and simulation."""

import evalica
import krippendorff
import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.inter_rater import fleiss_kappa

from palate.labeling.statistics.agreement import (
    NOBODY,
    ONE_ANSWER,
    Ballots,
    Nominal,
    Ordinal,
    backing,
    ballots,
    nominal,
    ordinal,
    ordinal_weights,
)
from palate.labeling.statistics.measures import Estimate, wilson
from palate.labeling.statistics.resampling import NO_SPREAD, TOO_FEW, Floats, Ints

# Four observers, twelve units, five values; "." is missing. Krippendorff 2011, "Computing Krippendorff's
# Alpha-Reliability", section C, and the example of Gwet 2014, "Handbook of Inter-Rater Reliability", table 2.10.
ROWS = ("123321412...", "1233224125.3", ".3332342251.", "12332441251.")
PUBLISHED = np.array([[np.nan if mark == "." else float(mark) for mark in row] for row in ROWS])


def grades() -> Floats:
    """(40, 5) items by annotators: grades -3..3, three or four for each item, by a rule that needs no random numbers."""
    item, rater = np.meshgrid(np.arange(40), np.arange(5), indexing="ij")
    base = (item * item + 3 * item) % 7
    off = ((item + 2 * rater) % 5 == 0).astype(int) - ((3 * item + rater) % 7 == 1).astype(int)
    grade = np.clip(base + off, 0, 6) - 3.0
    grade[(item * 5 + rater * 3) % 8 < 3] = np.nan
    return grade


def count(table: Floats, categories: range | list[float]) -> Ballots:
    """Votes per item from (items, annotators) with NaN for missing."""
    counts = np.stack([(table == category).sum(1) for category in categories], axis=1)
    return ballots(counts, np.arange(len(table)))


def test_nominal_by_hand() -> None:
    """Units (b, tie, a): b b | b a | a a a | tie. Of 10 ordered pairs of votes 8 agree. alpha: 7 votes, 3 b and 4 a,
    D_o = 2 / 1, D_e = (49 - 9 - 16) / 6. Shares of the categories, mean over units: 3/8, 2/8, 3/8."""
    found = nominal(ballots(np.array([[2, 0, 0], [1, 0, 1], [0, 0, 3], [0, 1, 0]]), np.arange(4)))
    observed, fleiss, ac1 = 2 / 3, 22 / 64, 42 / 64 / 2
    assert found == Nominal(
        percent=Estimate(0.8, None, None, 3, TOO_FEW),
        chance=18 / 42,
        alpha=Estimate(pytest.approx(1 - 2 / 4), None, None, 3, TOO_FEW),
        fleiss=Estimate(pytest.approx((observed - fleiss) / (1 - fleiss)), None, None, 3, TOO_FEW),
        ac1=Estimate(pytest.approx((observed - ac1) / (1 - ac1)), None, None, 3, TOO_FEW),
        units=3,
        votes=7,
    )


def test_ordinal_by_hand() -> None:
    """Units: grades 1 and 3 | 2 and 2. alpha: distances 1.5^2 between neighbours and 3^2 across, D_o = 2 x 9,
    D_e = 2 (2 x 2.25 + 9 + 2 x 2.25) / 3. AC2: weights 2/3 and 0, shares 1/4, 1/2, 1/4."""
    found = ordinal(ballots(np.array([[1, 0, 1], [0, 2, 0]]), np.arange(2)))
    chance = (3 + 4 * 2 / 3) / 6 * (3 / 16 + 1 / 4 + 3 / 16)
    assert found == Ordinal(
        alpha=Estimate(pytest.approx(1 - 18 / (36 / 3)), None, None, 2, TOO_FEW),
        ac2=Estimate(pytest.approx((0.5 - chance) / (1 - chance)), None, None, 2, TOO_FEW),
        units=2,
        votes=4,
    )
    assert ordinal_weights(3) == pytest.approx(np.array([[1, 2 / 3, 0], [2 / 3, 1, 2 / 3], [0, 2 / 3, 1]]))


def test_published_example() -> None:
    found = nominal(count(PUBLISHED.T, [1.0, 2.0, 3.0, 4.0, 5.0]))
    assert found.alpha.value == pytest.approx(0.743, abs=5e-4)
    assert found.fleiss.value == pytest.approx(0.761, abs=5e-4)
    assert found.ac1.value == pytest.approx(0.775, abs=5e-4)


# irrCAC 0.4.4 (a port of Gwet's own R functions) with all categories named and digits=12, on `grades()`, on their signs,
# and on the signs without 0: (AC1, Fleiss' kappa, AC2 with ordinal weights). In the last some items have a single vote.
IRRCAC = {
    "grades": (0.527328790968, 0.45993862939, 0.927822741144),
    "signs": (0.8573576697, 0.806909424429, 0.895231643662),
    "decided": (0.851862673484, 0.820879703233, None),
}


@pytest.mark.parametrize("name", IRRCAC)
def test_against_irrcac(name: str) -> None:
    table = grades() if name == "grades" else np.sign(grades())
    if name == "decided":
        table[table == 0] = np.nan
    found = count(table, range(-3, 4) if name == "grades" else range(-1, 2))
    ac1, fleiss, ac2 = IRRCAC[name]
    first = nominal(found, draws=0)
    assert (first.ac1.value, first.fleiss.value) == pytest.approx((ac1, fleiss), abs=1e-11)
    if ac2 is not None:
        assert ordinal(found, draws=0).ac2.value == pytest.approx(ac2, abs=1e-11)


@pytest.mark.parametrize(
    "table", [PUBLISHED.T, grades(), np.sign(grades())], ids=["published", "grades", "signs"]
)
def test_alpha_against_krippendorff_and_evalica(table: Floats) -> None:
    found = count(table, range(-5, 6))
    ours = {"nominal": nominal(found, 0).alpha.value, "ordinal": ordinal(found, 0).alpha.value}
    for level, value in ours.items():
        assert value == pytest.approx(
            krippendorff.alpha(reliability_data=table.T, level_of_measurement=level), abs=1e-10
        )
        theirs = evalica.alpha(pd.DataFrame(table.T), distance=level)  # type: ignore[arg-type]
        assert value == pytest.approx(theirs.alpha, abs=1e-10)


def test_fleiss_against_statsmodels() -> None:
    counts = np.random.default_rng(2).multinomial(5, [0.5, 0.2, 0.3], 70)
    ours = nominal(ballots(counts, np.arange(70)), 0).fleiss.value
    assert ours == pytest.approx(fleiss_kappa(counts, method="fleiss"), abs=1e-12)


def test_undefined_says_why() -> None:
    alone = nominal(ballots(np.array([[1, 0, 0], [0, 0, 1]]), np.arange(2)))
    nobody = Estimate(None, None, None, 0, NOBODY)
    assert alone == Nominal(nobody, None, nobody, nobody, nobody, 0, 0)
    nothing = np.zeros((0, 3), dtype=int)
    assert nominal(ballots(nothing, np.zeros(0, dtype=int))) == alone
    assert ordinal(ballots(nothing, np.zeros(0, dtype=int))) == Ordinal(nobody, nobody, 0, 0)
    same = nominal(ballots(np.array([[2, 0, 0]] * 20), np.arange(20)))
    one = Estimate(None, None, None, 20, ONE_ANSWER)
    assert same == Nominal(Estimate(1.0, wilson(20, 20)[0], 1.0, 20), 1.0, one, one, one, 20, 40)
    assert ordinal(ballots(np.array([[2, 0, 0]] * 20), np.arange(20))) == Ordinal(one, one, 20, 40)


def test_full_agreement_has_an_interval_for_percent_only() -> None:
    found = nominal(ballots(np.array([[2, 0, 0], [0, 0, 2]] * 10), np.arange(20)))
    assert found.percent == Estimate(1.0, wilson(20, 20)[0], 1.0, 20)
    assert found.alpha == Estimate(1.0, None, None, 20, NO_SPREAD)


def test_guessing_between_two_answers_is_alpha_nought() -> None:
    counts = np.random.default_rng(0).multinomial(2, [0.5, 0.0, 0.5], 4000)
    found = nominal(ballots(counts, np.arange(4000)))
    assert found.percent.value == pytest.approx(0.5, abs=0.03)
    for each in (found.alpha, found.fleiss, found.ac1):
        assert each.value == pytest.approx(2 * found.percent.value - 1, abs=2e-3)  # type: ignore[operator]
        assert each.low is not None and each.high is not None and each.low < 0.05 and each.high > -0.05


def test_votes_counted_anew_and_only_some_units() -> None:
    found = ballots(np.array([[2, 0, 1], [1, 2, 1], [0, 0, 2]]), np.array([4, 4, 6]))
    decided = nominal(found.counted(lambda counts: counts[:, [0, 2]]))
    assert decided.percent.value == pytest.approx((2 + 0 + 2) / (6 + 2 + 2))
    assert (decided.percent.n, decided.units, decided.votes) == (2, 3, 7)
    last = nominal(found.of(np.array([False, False, True])))
    assert (last.percent.value, last.percent.n, last.units) == (1.0, 1, 1)


def test_backing_by_hand() -> None:
    """One item: much better a, slightly better a, better b, a tie. Beside each vote stand three others."""
    found = backing(ballots(np.array([[0, 1, 0, 1, 1, 0, 1]]), np.array([0])))
    assert [(each.value, each.n) for each in found] == [
        (pytest.approx(1 / 3), 1),
        (0.0, 1),
        (pytest.approx(1 / 3), 1),
    ]
    assert [each.value for each in backing(ballots(np.zeros((0, 7), dtype=int), np.zeros(0, dtype=int)))] == [
        None
    ] * 3


def single(rng: np.random.Generator, items: int) -> tuple[Ints, Ints]:
    """Votes on single pairs: some items clear, some not, one vote in seven a tie, one to four votes each."""
    better = 1 / (1 + np.exp(-2 * rng.standard_normal(items)))
    shares = np.stack([better * 6 / 7, np.full(items, 1 / 7), (1 - better) * 6 / 7], axis=1)
    return rng.multinomial(rng.integers(1, 5, items), shares), np.arange(items)


def ranked(rng: np.random.Generator, items: int) -> tuple[Ints, Ints]:
    """Two or three people rank three answers: the three pairs of an item hang together."""
    worth = rng.standard_normal((items, 1, 3))
    seen = worth + 0.8 * rng.standard_normal((items, 3, 3))
    there = (np.arange(3) < rng.integers(2, 4, items)[:, None])[:, :, None]
    first = (seen[:, :, [0, 0, 1]] > seen[:, :, [1, 2, 2]]) & there
    counts = np.stack([first.sum(1), np.zeros((items, 3), dtype=int), (there & ~first).sum(1)], axis=2)
    return counts.reshape(-1, 3), np.repeat(np.arange(items), 3)


@pytest.mark.slow
@pytest.mark.parametrize(("drawn", "items"), [(single, 80), (ranked, 60)])
def test_intervals_cover(drawn: object, items: int) -> None:
    """Nominal 95 % intervals of percent, alpha, Fleiss' kappa and AC1 hold the truth in 93 to 97 % of 1,000 samples."""
    assert callable(drawn)
    rng = np.random.default_rng(11)
    truth = nominal(ballots(*drawn(rng, 400_000)), draws=0)
    names = ("percent", "alpha", "fleiss", "ac1")
    held = dict.fromkeys(names, 0)
    for _ in range(1000):
        found = nominal(ballots(*drawn(rng, items)))
        for name in names:
            each = getattr(found, name)
            held[name] += each.low <= getattr(truth, name).value <= each.high
    assert {name: 930 <= n <= 970 for name, n in held.items()} == dict.fromkeys(names, True), held


@pytest.mark.slow
def test_ordinal_intervals_cover() -> None:
    def drawn(items: int) -> tuple[Ints, Ints]:
        seen = rng.normal(0, 1.5, (items, 1)) + rng.standard_normal((items, 3))
        seen[:, 2][rng.random(items) < 0.5] = np.nan
        grade = np.clip(np.round(seen), -3, 3)
        return np.stack([(grade == size).sum(1) for size in range(-3, 4)], axis=1), np.arange(items)

    rng = np.random.default_rng(12)
    truth = ordinal(ballots(*drawn(400_000)), draws=0)
    held = {"alpha": 0, "ac2": 0}
    for _ in range(1000):
        found = ordinal(ballots(*drawn(100)))
        for name in held:
            each = getattr(found, name)
            held[name] += each.low <= getattr(truth, name).value <= each.high
    assert {name: 930 <= n <= 970 for name, n in held.items()} == dict.fromkeys(held, True), held
