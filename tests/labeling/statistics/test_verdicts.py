"""Verdicts by hand: what is typical, what is worth talking about, how many votes are missing."""

import numpy as np
import pytest

from palate.labeling.statistics.reliability import Decisions, Reliability, by_margins
from palate.labeling.statistics.verdicts import (
    FINE,
    TALK,
    TOO_FEW,
    Comparison,
    Levels,
    less_reliable,
    levels,
    verdicts,
)

SURE = 60.0  # log-odds: it is known which one is better


def known(right: list[int], n: list[int]) -> Reliability:
    """Annotators with so many right of so many votes on pairs whose better completion is certain."""
    person = np.repeat(np.arange(len(n)), n)
    hit = np.concatenate([np.arange(votes) < hits for hits, votes in zip(right, n, strict=True)])
    one = Decisions(np.arange(len(person)), person, hit, np.ones(len(person)), len(person), len(n))
    return by_margins(one, np.full(len(person), SURE))


def other(p: list[float], far: list[bool], able: list[bool] | None = None) -> Comparison:
    """A comparison with these p-values."""
    return Comparison(
        "other", np.array(able or [True] * len(p)), np.array(p), np.array(far), lambda k: f"differs ({k})"
    )


def test_typical_is_the_median_of_those_who_are_known() -> None:
    found = known([46, 45, 20, 0], [50, 50, 50, 3])
    at = levels(found)
    # (46 + 7) / 58, (45 + 7) / 58, (20 + 7) / 58; the last has three votes
    assert at.typical == pytest.approx(52 / 58, abs=1e-3)
    assert at.concern == pytest.approx(at.typical - (at.typical - 0.5) / 3)
    nobody = levels(known([0], [0]))
    assert nobody == Levels(0.5, 0.5)


def test_one_of_each_verdict() -> None:
    found = known([190, 188, 100, 9], [200, 200, 200, 10])
    at = levels(found)
    talk = less_reliable(found, at)
    assert talk.far.tolist() == [False, False, True, False] and talk.p[2] < 1e-10
    given = verdicts(found, at, [talk])
    assert [one.verdict for one in given] == [FINE, FINE, TALK, TOO_FEW]
    assert given[2].why.startswith(
        "names the better answer in 51 % of cases (95 %: 43 % to 57 %), typical is 94 %"
    )
    # the 95 % interval is to be as narrow as the distance from concern: 3.84 eta (1 - eta) / gap^2 votes with a known
    # answer; so far each vote has told as much as told / 10 such votes
    eta, told = found.eta[3], found.told[3]
    assert eta == pytest.approx((9 + 7) / (10 + 8), abs=1e-3) and told == pytest.approx(9.1, abs=0.1)
    gap = max(eta - at.concern, (at.typical - at.concern) / 2)
    needed = 3.84 * eta * (1 - eta) / gap**2
    assert (
        given[3].more == int(np.ceil((needed - told) / (told / 10)))
        and given[3].why == f"{given[3].more} more needed"
    )


def test_both_a_small_p_value_and_a_difference_that_matters_are_needed() -> None:
    found = known([95, 95, 95], [100, 100, 100])
    at = levels(found)
    small, large = other([1e-6, 0.03, 0.5], [False, True, True]), other([0.5, 0.5, 1e-4], [True] * 3)
    given = verdicts(found, at, [small, large])
    # Holm over six: 6e-6 does not matter enough, 1e-4 * 5 does, 0.03 * 4 is too large
    assert [one.verdict for one in given] == [FINE, FINE, TALK]
    assert given[2].p == pytest.approx(5e-4) and given[2].why == "differs (2)"
    # where there is nothing to compare nothing is tested, so less is adjusted
    alone = verdicts(found, at, [other([1.0, 0.03, 1.0], [True] * 3, [False, True, False])])
    assert [one.verdict for one in alone] == [FINE, TALK, FINE]


def test_votes_that_tell_nothing_can_not_be_made_up_for_by_more() -> None:
    nothing = by_margins(
        Decisions(np.arange(50), np.zeros(50, int), np.ones(50, bool), np.ones(50), 50, 1), np.zeros(50)
    )
    given = verdicts(nothing, levels(nothing), [less_reliable(nothing, levels(nothing))])
    assert given[0].verdict == TOO_FEW and given[0].more is None
    assert given[0].why == "needs items that others answer, too"
