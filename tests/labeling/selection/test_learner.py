"""The learner: the same from a restart as from votes one by one, rankings by both rules, people, the clock."""

from dataclasses import replace

import numpy as np
import pytest

from palate.labeling.selection.control import LATEST
from palate.labeling.selection.information import unsure
from palate.labeling.selection.learner import CANDIDATES, Learner, Settings
from palate.labeling.selection.pool import Candidate, Cast, Pool
from tests.labeling.selection.world import RUN

SIZE = 10


def made(n: int = 300, seed: int = 0, k: int = 2) -> tuple[Pool, np.ndarray]:
    """(pool of `n` waiting comparisons, taste)."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(n * k, SIZE)).astype(np.float32)
    waiting = tuple(
        Candidate(f"c{i}", f"p{i}", tuple(range(k * i, k * i + k)), 10.0 + i % 7) for i in range(n)
    )
    return Pool(RUN, {}, np.ones(n * k), matrix, waiting, (), 0, False), rng.normal(size=SIZE)


def vote(
    pool: Pool, taste: np.ndarray, place: int, by: str = "anna", flip: bool = False, chosen: bool = False
) -> Cast:
    one = pool.waiting[place]
    order = sorted(one.rows, key=lambda row: -float(pool.matrix[row] @ taste), reverse=flip)
    pairs = tuple((a, b, 1.0) for i, a in enumerate(order) for b in order[i + 1 :])
    best, worst = one.rows.index(order[0]), one.rows.index(order[-1])
    return Cast(f"{by}-{place}", by, one.id, one.prompt, one.rows, pairs, best, worst, chosen, one.words, 6.0)


def taught(learner: Learner, one: Cast) -> None:
    learner.learn(one)
    if learner.due:
        learner.refit()


def right(learner: Learner, pool: Pool, taste: np.ndarray) -> float:
    z = np.array([pool.matrix[c.rows[0]] - pool.matrix[c.rows[1]] for c in pool.waiting], dtype=float)
    return float(np.mean((z @ learner.head.mean > 0) == (z @ taste > 0)))


def test_it_learns_and_a_restart_knows_the_same() -> None:
    pool, taste = made()
    learner = Learner(pool, Settings("information"))
    votes = [vote(pool, taste, i) for i in range(60)]
    for one in votes:
        taught(learner, one)
    assert right(learner, pool, taste) > 0.85 and learner.votes == 60
    again = Learner(replace(pool, votes=tuple(votes)), Settings("information"))
    np.testing.assert_allclose(again.head.mean, learner.head.mean)
    np.testing.assert_allclose(again.head.covariance, learner.head.covariance)
    assert again.verdict == learner.verdict and again.clock.votes == learner.clock.votes == 60


def test_a_changed_vote_takes_the_place_of_the_old_one() -> None:
    pool, taste = made(40)
    learner, other = Learner(pool, Settings("information")), Learner(pool, Settings("information"))
    for i in range(20):
        taught(learner, vote(pool, taste, i))
        taught(other, vote(pool, taste, i, flip=i == 7))
    taught(other, vote(pool, taste, 7))
    assert (other.votes, other.verdict.votes) == (20, 20)  # the control is told once
    np.testing.assert_allclose(other.head.mean, learner.head.mean, rtol=1e-6)


def test_the_most_open_order_per_second_comes_first() -> None:
    pool, taste = made(200)
    learner = Learner(pool, Settings("information"))
    for i in range(40):
        taught(learner, vote(pool, taste, i))
    found = learner.ranking(pool.waiting[40:], [])
    assert len(found.ids) == 160 and list(found.scores) == sorted(found.scores, reverse=True)
    best = next(c for c in pool.waiting if c.id == found.ids[0])
    worst = next(c for c in pool.waiting if c.id == found.ids[-1])
    x = np.array([pool.matrix[list(c.rows)] for c in (best, worst)])
    a, b = unsure(learner.head, x)
    assert a > 3 * b
    slow = [replace(c, words=2000.0) if c.id == best.id else c for c in pool.waiting[40:]]
    assert learner.ranking(slow, []).ids.index(best.id) > 20  # too long to read for what it teaches


def test_those_out_count_as_answered() -> None:
    pool, taste = made(60)
    twin = np.concatenate([pool.matrix, pool.matrix[:2]])  # c60 is c0 again
    pool = replace(pool, matrix=twin, waiting=(*pool.waiting, Candidate("twin", "p", (120, 121), 10.0)))
    learner = Learner(pool, Settings("information"))
    for i in range(1, 30):
        taught(learner, vote(pool, taste, i))
    before, after = (learner.ranking([pool.waiting[-1]], out).scores[0] for out in ([], [pool.waiting[0]]))
    assert after < before


def test_dpo_wants_gaps_that_are_certain() -> None:
    pool, taste = made(200)
    learner = Learner(pool, Settings("dpo"))
    for i in range(80):
        taught(learner, vote(pool, taste, i))
    found = learner.ranking(pool.waiting[80:], [])
    rows = {c.id: c.rows for c in pool.waiting}
    gaps = [
        abs(float((pool.matrix[rows[name][0]] - pool.matrix[rows[name][1]]) @ taste)) for name in found.ids
    ]
    assert np.mean(gaps[:20]) > 2 * np.mean(gaps[-20:])
    for i in range(80, 200):
        taught(learner, vote(pool, taste, i, chosen=i % 2 == 0))
    assert learner.verdict.on and learner.votes == LATEST  # certain pairs are no reason to stop


def test_rankings_of_several_sizes_and_a_large_pool() -> None:
    pool, _ = made(2000, k=3)
    mixed = replace(
        pool, waiting=tuple(replace(c, rows=c.rows[:2]) if i % 2 else c for i, c in enumerate(pool.waiting))
    )
    found = Learner(mixed, Settings("information")).ranking(mixed.waiting, [])
    assert len(found.ids) == len(set(found.ids)) == CANDIDATES
    kinds = {name: len(c.rows) for c in mixed.waiting for name in [c.id]}
    assert {kinds[name] for name in found.ids} == {2, 3}


def test_unreliable_annotators_weigh_less_and_get_what_they_do_least_badly() -> None:
    pool, taste = made(600, seed=3)
    learner = Learner(pool, Settings("information", control=False))
    rng = np.random.default_rng(0)
    for i in range(400):
        by = ("anna", "ben", "coin")[i % 3]
        taught(learner, vote(pool, taste, i, by, flip=bool(rng.random() < (0.5 if by == "coin" else 0.05))))
    assert learner.eta["coin"] < 0.7 and min(learner.eta["anna"], learner.eta["ben"]) > 0.85
    ranking = learner.ranking(pool.waiting[400:], [])
    people = ["anna", "ben", "coin"]
    assert learner.routed(ranking, "somebody", people) == ranking.ids
    assert learner.routed(ranking, "coin", []) == ranking.ids
    mine, theirs = learner.routed(ranking, "anna", people), learner.routed(ranking, "coin", people)
    size = dict(zip(ranking.ids, ranking.mean, strict=True))
    assert set(mine) == set(theirs) == set(ranking.ids)
    reliable, coin = (np.mean([size[name] for name in order[:50]]) for order in (mine, theirs))
    assert coin < reliable  # the margins of what they get: votes against a large one are mostly errors


def test_diversity_keeps_away_from_what_was_asked() -> None:
    pool, taste = made(120)
    near = pool.matrix.copy()
    near[80:] += 4.0  # another kind of prompt
    pool = replace(pool, matrix=near)
    plain, wide = (Learner(pool, Settings("information", diversity=beta)) for beta in (0.0, 2.0))
    for i in range(30):
        taught(plain, vote(pool, taste, i))
        taught(wide, vote(pool, taste, i))
    far = {c.id for c in pool.waiting[40:]}
    shares = [
        np.mean([name in far for name in one.ranking(pool.waiting[30:], []).ids[:10]])
        for one in (plain, wide)
    ]
    assert shares[1] == 1.0 >= shares[0]


def test_without_anything() -> None:
    empty = Pool(RUN, {}, np.zeros(0), np.zeros((0, 0), dtype=np.float32), (), (), 0, False)
    learner = Learner(empty, Settings("information"))
    assert learner.ranking((), []).ids == () and learner.votes == 0 and learner.verdict.on


@pytest.mark.parametrize("rule", ["information", "dpo"])
def test_the_share_by_chance_is_larger_at_first(rule: str) -> None:
    pool, taste = made(400)
    learner = Learner(pool, Settings(rule, 0.15))  # type: ignore[arg-type]
    assert learner.share == 0.4
    for i in range(LATEST):
        taught(learner, vote(pool, taste, i, chosen=bool(i % 3)))
    assert learner.share in (0.15, 1.0)
    assert Learner(pool, Settings(rule, 0.15, control=False)).share == 0.15  # type: ignore[arg-type]
