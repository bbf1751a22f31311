"""Repeats and circular triads by hand, against all triples one by one, and against Kendall's formula."""

from itertools import combinations

import numpy as np
import pytest

from palate.labeling.statistics.consistency import (
    CHANCE,
    NO_FLIP,
    NO_REPEAT,
    NO_SLIP,
    NO_TRIAD,
    Repeats,
    Rounds,
    circular_share,
    may_close,
    repeats,
    rounds,
    triads,
)
from palate.labeling.statistics.measures import Share, wilson
from palate.labeling.statistics.resampling import Ints

NOTHING: Ints = np.zeros(0, dtype=np.int64)


def share(hits: int, n: int) -> Share:
    return Share(hits / n, pytest.approx(wilson(hits, n)[0]), pytest.approx(wilson(hits, n)[1]), n)


def test_repeats_by_hand() -> None:
    """Six votes: same winner, swapped | other winner, swapped, the first place twice | the same, the last place |
    a tie both times | a tie and a win | the other winner though nothing was swapped."""
    rows = [
        # before, after, a first before, a first after
        (1, 1, 1, 0),
        (1, -1, 1, 0),
        (-1, 1, 1, 0),
        (0, 0, 1, 0),
        (0, 1, 0, 1),
        (1, -1, 1, 1),
    ]
    before, after, first_before, first_after = np.array(rows).T
    found = repeats(np.arange(6), before, after, first_before, first_after)
    assert found == Repeats(same=share(2, 6), same_side=share(2, 3), first_side=share(1, 2))


def test_pairs_of_a_repeated_ranking_count_as_one_vote() -> None:
    ones, zeros = np.ones(6, dtype=int), np.zeros(6, dtype=int)
    found = repeats(np.repeat([8, 9], 3), ones, np.array([1, 1, 1, -1, -1, -1]), ones, zeros)
    assert (found.same.value, found.same.n) == (0.5, 6)
    assert (found.same.low, found.same.high) == pytest.approx(wilson(1, 2))


def test_no_repeats_say_why() -> None:
    assert repeats(NOTHING, NOTHING, NOTHING, NOTHING, NOTHING) == Repeats(
        Share(None, None, None, 0, NO_REPEAT),
        Share(None, None, None, 0, NO_FLIP),
        Share(None, None, None, 0, NO_SLIP),
    )
    unknown = repeats(np.array([1]), np.array([1]), np.array([1]), np.array([-1]), np.array([0]))
    assert (unknown.same.value, unknown.same_side.why) == (1.0, NO_FLIP)


def test_triads_by_hand() -> None:
    """Group 7: 1 over 2, 2 over 3, 3 over 1, a circle; with 4 they have nothing to do. Group 8: the same three in
    order. Group 9: one draw keeps the triple open."""
    rows = [
        (7, 1, 2, 1), (7, 2, 3, 1), (7, 1, 3, -1), (7, 3, 4, 1),
        (8, 2, 1, -1), (8, 3, 2, -1), (8, 1, 3, 1),
        (9, 1, 2, 1), (9, 2, 3, 1), (9, 1, 3, 1), (9, 3, 1, 1),
    ]  # fmt: skip
    found = triads(*np.array(rows).T)
    assert (found.group.tolist(), found.closed.tolist(), found.circular.tolist()) == ([7, 8], [1, 1], [1, 0])
    assert circular_share(found) == share(1, 2)
    empty = triads(NOTHING, NOTHING, NOTHING, NOTHING)
    assert circular_share(empty) == Share(None, None, None, 0, NO_TRIAD)


def test_triads_against_all_triples() -> None:
    rng = np.random.default_rng(0)
    rows, expected = [], {}
    for group in range(40):
        size = int(rng.integers(2, 9))
        names = rng.integers(0, 2**64, size, dtype=np.uint64)  # as hashes are
        beats = {}
        for one, other in combinations(range(size), 2):
            votes = rng.choice([-1, 0, 1], rng.integers(0, 4))
            rows += [(group, names[one], names[other], vote) for vote in votes[:2]]
            rows += [(group, names[other], names[one], -vote) for vote in votes[2:]]
            if votes.sum():
                beats[one, other], beats[other, one] = votes.sum() > 0, votes.sum() < 0
        closed = [
            (x, y, z)
            for x, y, z in combinations(range(size), 3)
            if all(pair in beats for pair in ((x, y), (y, z), (z, x)))
        ]
        if closed:
            expected[group] = (
                len(closed),
                sum(beats[x, y] == beats[y, z] == beats[z, x] for x, y, z in closed),
            )
    found = triads(*(np.array(column) for column in zip(*rows, strict=True)))
    assert (
        dict(zip(found.group.tolist(), zip(found.closed, found.circular, strict=True), strict=True))
        == expected
    )


def test_a_complete_tournament_against_kendall() -> None:
    """d = K (K - 1) (2 K - 1) / 12 - sum of squared scores / 2 (Kendall & Babington Smith 1940)."""
    rng = np.random.default_rng(1)
    a, b = np.array(list(combinations(range(9), 2))).T
    sign = rng.choice([-1, 1], len(a))
    scores = np.bincount(np.where(sign > 0, a, b), minlength=9)
    found = triads(np.zeros(len(a), dtype=int), a, b, sign)
    assert found.closed.tolist() == [84]
    assert found.circular[0] == 9 * 8 * 17 / 12 - (scores**2).sum() / 2
    wins = np.zeros((9, 9))
    wins[np.where(sign > 0, a, b), np.where(sign > 0, b, a)] = 1
    assert (rounds(wins).closed, rounds(wins).circular, rounds(wins).sure) == (84, found.circular[0], 0)


def test_guessing_makes_a_quarter_circular() -> None:
    a, b = (np.tile(ends, 20_000) for ends in np.array(list(combinations(range(4), 2))).T)
    sign = np.random.default_rng(2).choice([-1, 1], len(a))
    found = circular_share(triads(np.repeat(np.arange(20_000), 6), a, b, sign))
    assert found.n == 80_000
    assert found.low is not None and found.high is not None and found.low < CHANCE < found.high


def test_only_groups_of_three_may_close() -> None:
    group = np.random.default_rng(3).integers(0, 2**40, 3000)
    group = np.concatenate([group, group[:1500], group[:700]])
    expected = (
        np.bincount(np.unique(group, return_inverse=True)[1])[np.unique(group, return_inverse=True)[1]] > 2
    )
    assert np.array_equal(may_close(group), expected)
    assert may_close(NOTHING).tolist() == []


def test_circles_of_models_by_hand() -> None:
    """0 beats 1 by 60 : 40, 1 beats 2 by 90 : 10, 2 beats 0 by 70 : 30; 3 has met 0 and 1, with a draw."""
    wins = np.zeros((4, 4))
    wins[0, 1], wins[1, 0] = 60, 40
    wins[1, 2], wins[2, 1] = 90, 10
    wins[2, 0], wins[0, 2] = 70, 30
    wins[3, 0], wins[0, 3], wins[3, 1], wins[1, 3] = 5, 5, 9, 1
    assert wilson(60, 100)[0] > 0.5  # so the weakest of the three wins is beyond doubt
    assert rounds(wins) == Rounds(1, 1, 1, [(0, 1, 2)])
    wins[0, 1], wins[1, 0] = 55, 45
    assert wilson(55, 100)[0] < 0.5
    assert rounds(wins) == Rounds(1, 1, 0, [(0, 1, 2)])
    assert rounds(np.zeros((0, 0))) == Rounds(0, 0, 0, [])
