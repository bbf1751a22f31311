"""Does somebody agree with themselves: the same item twice, and circles of preferences.

Repeats: an item that an annotator answered comes back to them later with its sides swapped. Who judges the answers
names the same winner again; who picks by place names the same side, and so the other winner.

Circular triads: a over b, b over c, c over a. Of three decided pairs, 2 of 8 outcomes are circular, so somebody who
guesses makes a quarter of all closed triads circular (Kendall & Babington Smith 1940, "On the method of paired
comparisons"). A ranking can't be circular, so only pairs count that were judged in separate comparisons.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palate.labeling.statistics.measures import Z95, Share, clustered_share
from palate.labeling.statistics.resampling import Floats, Ints

CHANCE = 0.25  # of a closed triad being circular
NO_REPEAT = "no item was answered twice by the same annotator"
NO_FLIP = "no item came back with its sides swapped and was decided both times"
NO_SLIP = "nobody picked the same side twice"
NO_TRIAD = "nobody compared three answers to one prompt with each other in separate comparisons"
NO_ROUND = "no three models were all compared with each other"


@dataclass(frozen=True)
class Repeats:
    """What people say when an item comes back. All intervals are Wilson's, over votes."""

    same: Share  # pairs of completions given the same winner, or a tie, both times
    same_side: Share  # decided both times, sides swapped between: the same side won, so the winner changed
    first_side: Share  # of those: it was the side shown first


def repeats(vote: Ints, then: Ints, now: Ints, first_then: Ints, first_now: Ints) -> Repeats:
    """From one row per repeated pair of completions: the code of the second vote, the signs of both judgements (1: a is
    better, -1: b, 0: a tie), and whether a was shown first (1, 0; -1 unknown), all (N,)."""
    swapped = (first_then >= 0) & (first_now >= 0) & (first_then != first_now) & (then != 0) & (now != 0)
    slipped = swapped & (then != now)
    to_first = (now > 0) == (first_now > 0)
    return Repeats(
        _by_vote(vote, then == now, NO_REPEAT),
        _by_vote(vote[swapped], slipped[swapped], NO_FLIP),
        _by_vote(vote[slipped], to_first[slipped], NO_SLIP),
    )


def _by_vote(vote: Ints, hit: NDArray[np.bool_], nothing: str) -> Share:
    _, votes = np.unique(vote, return_inverse=True)
    return clustered_share(np.stack([np.bincount(votes, weights=hit), np.bincount(votes)], axis=1), nothing)


@dataclass(frozen=True)
class Triads:
    """Closed triads by group, an annotator's judgements on one prompt. G = groups with a closed triad."""

    group: Ints  # (G,)
    closed: Ints  # (G,)
    circular: Ints  # (G,) of those


def may_close(group: Ints) -> NDArray[np.bool_]:
    """(N,) which rows belong to a group of three or more rows, by the group of each row.

    Of ten million rows few do. So rows are first counted in buckets, many groups to one: no sorting of all.
    """
    bucket = (group.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(64 - 24)
    keep: NDArray[np.bool_] = np.bincount(bucket.astype(np.int64))[bucket] > 2
    _, number, size = np.unique(group[keep], return_inverse=True, return_counts=True)
    keep[keep] = size[number] > 2
    return keep


def triads(group: Ints, a: Ints, b: Ints, sign: Ints) -> Triads:
    """From one row per judgement of a pair of completions in a group: completions a and b (codes), sign 1 (a is
    better), -1 or 0, all (N,). Several judgements of a pair in a group count by their majority; draws don't count."""
    groups, number = np.unique(group, return_inverse=True)
    nodes, ends = np.unique(np.stack([a, b]), return_inverse=True)
    ends = ends.reshape(2, -1)
    low, high = ends.min(0), ends.max(0)
    order = np.lexsort((high, low, number))
    toward = np.where(ends[0] < ends[1], sign, -sign)[order]
    of, low, high, sign = _majority(number[order], low[order], high[order], toward)
    # runs of pairs with the same group and the same lower end x; within them z of (x, z) rises
    source = of * len(nodes) + low
    begins = np.r_[True, source[1:] != source[:-1]][: len(source)]
    sources, run = source[begins], np.cumsum(begins) - 1
    rows = run * len(nodes) + high
    one, other = _both(np.diff(np.r_[np.flatnonzero(begins), len(source)]))
    # (x, y) and (x, z) close when (y, z) is there too
    third = _find(sources, of[one] * len(nodes) + high[one])
    third[third >= 0] = _find(rows, third[third >= 0] * len(nodes) + high[other[third >= 0]])
    closed = third >= 0
    one, other, third = one[closed], other[closed], third[closed]
    # x over y over z over x, or all reversed
    circular = (sign[one] == sign[third]) & (sign[other] == -sign[third])
    triples = np.bincount(of[one], minlength=len(groups))
    loops = np.bincount(of[one], weights=circular, minlength=len(groups)).astype(np.int64)
    return Triads(groups[triples > 0], triples[triples > 0], loops[triples > 0])


def _majority(number: Ints, low: Ints, high: Ints, sign: Ints) -> tuple[Ints, Ints, Ints, Ints]:
    """Equal pairs, which stand next to each other, as one row each; pairs without a majority left out."""
    fresh = (
        (np.diff(number, prepend=-1) != 0)
        | (np.diff(low, prepend=-1) != 0)
        | (np.diff(high, prepend=-1) != 0)
    )
    if not len(fresh):
        return number, low, high, sign
    starts = np.flatnonzero(fresh)
    wins: Ints = np.sign(np.add.reduceat(sign.astype(np.int64), starts))
    starts, wins = starts[wins != 0], wins[wins != 0]
    return number[starts], low[starts], high[starts], wins


def _both(sizes: Ints) -> tuple[Ints, Ints]:
    """All pairs of rows within runs of consecutive rows: (the earlier, the later)."""
    later = np.repeat(np.cumsum(sizes), sizes) - np.arange(sizes.sum()) - 1  # rows after this one in its run
    one = np.repeat(np.arange(len(later)), later)
    offset = np.arange(len(one)) - np.repeat(np.cumsum(later) - later, later)
    return one, one + 1 + offset


def _find(keys: Ints, wanted: Ints) -> Ints:
    """Where each wanted value stands among sorted keys; -1: nowhere."""
    place = np.searchsorted(keys, wanted)
    there = np.r_[keys, -1][place] == wanted
    return np.where(there, place, -1)


def circular_share(found: Triads) -> Share:
    """The circular among closed triads; those of one group hang together."""
    return clustered_share(np.stack([found.circular, found.closed], axis=1).astype(np.float64), NO_TRIAD)


@dataclass(frozen=True)
class Rounds:
    """Circles among models, by who won more votes."""

    closed: int  # triples of models of which each two were compared, without a draw
    circular: int
    sure: int  # circular, and each of the three wins is beyond doubt
    worst: list[
        tuple[int, int, int]
    ]  # the circles whose weakest link is strongest: x beats y beats z beats x


def rounds(wins: Floats, most: int = 10) -> Rounds:
    """From `wins` (M, M): votes for the row's model against the column's, a tie half a vote for each; M up to a few
    hundred. A win is beyond doubt where Wilson's 95 % interval of its share leaves out one half."""
    n = wins + wins.T
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(n > 0, wins / n, 0.5)
        margin = np.where(n > 0, (share - 0.5) * np.sqrt(n), 0.0)
        # Wilson's lower bound is above 1/2 where the score test rejects it: 2 (p - 1/2) sqrt(n) > z
        sure = (2 * margin > Z95).astype(np.float64)
    beats = (margin > 0).astype(np.float64)
    met = beats + beats.T
    closed, circular, certain = (_threes(each) for each in (met, beats, sure))
    return Rounds(closed // 2, circular, certain, _strongest(beats > 0, margin, most) if circular else [])


def _threes(links: Floats) -> int:
    """Closed walks of three steps, each counted once for its three starts."""
    return round(float(np.einsum("ij,ji->", links @ links, links)) / 3)


def _strongest(beats: NDArray[np.bool_], margin: Floats, most: int) -> list[tuple[int, int, int]]:
    """Circles x, y, z by their weakest link, strongest first; x is the smallest code."""
    found: list[tuple[float, tuple[int, int, int]]] = []
    for x in range(len(beats)):
        ys, zs = np.flatnonzero(beats[x]), np.flatnonzero(beats[:, x])
        ys, zs = ys[ys > x], zs[zs > x]
        weakest = np.minimum(np.minimum(margin[x, ys, None], margin[np.ix_(ys, zs)]), margin[zs, x])
        best = np.argsort(-weakest, axis=None, kind="stable")[:most]
        for y, z in zip(*np.unravel_index(best, weakest.shape), strict=True):
            if weakest[y, z] > 0:
                found.append((-float(weakest[y, z]), (x, int(ys[y]), int(zs[z]))))
    return [circle for _, circle in sorted(found)[:most]]
