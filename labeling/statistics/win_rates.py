"""How often each model wins: against the others together, and against each one. A tie is half a win."""

from dataclasses import dataclass

import numpy as np

from palate.labeling.statistics.measures import Z95
from palate.labeling.statistics.model_votes import Counts, Floats, Ints, by_pair


@dataclass(frozen=True)
class WinRates:
    """Shares of votes won. M = models; zeros where `votes` is 0."""

    share: Floats  # (M,)
    low: Floats  # (M,) 95 % interval
    high: Floats
    votes: Ints  # (M,) votes between this model and another
    items: Ints  # (M,) items that these are on


def win_rates(counts: Counts, cluster: Ints) -> WinRates:
    """Wilson's interval for an effective number of votes, because those on one item hang together.

    cluster: (R,) codes >= 0 of items. The effective number is the votes over Kish's design effect: the variance
    between items over the binomial one; if all votes went one way there is none to measure, and items count.
    """
    rows = counts.rows(counts.a != counts.b)
    cluster = cluster[counts.a != counts.b]
    model = np.concatenate([rows.a, rows.b])
    won = np.concatenate([rows.a_wins + rows.ties / 2, rows.b_wins + rows.ties / 2])
    both = np.tile(rows.votes, 2)
    # bincount of nothing counts in integers, whatever the weights
    votes, wins = (np.bincount(model, value, counts.models).astype(np.float64) for value in (both, won))
    some = votes > 0
    share = np.divide(wins, votes, out=np.zeros_like(votes), where=some)
    of, item_votes, item_wins = _by_item(model, np.tile(cluster, 2), both, won, counts.models)
    between = np.bincount(of, (item_wins - share[of] * item_votes) ** 2, counts.models)
    items = np.bincount(of[item_votes > 0], minlength=counts.models)
    binomial = votes * share * (1 - share)
    effect = np.divide(between, binomial, out=np.ones_like(votes), where=binomial > 0)
    effective = np.where(binomial > 0, votes / np.maximum(effect, 1), items)
    low, high = _wilson(share[some], effective[some])
    ends = np.zeros((2, counts.models))
    ends[:, some] = low, high
    return WinRates(share, ends[0], ends[1], votes.astype(np.int64), items)


def win_matrix(counts: Counts) -> tuple[Floats, Floats]:
    """((M, M) share of its votes that the row's model wins against the column's, 0 without votes; (M, M) votes)."""
    pairs = by_pair(counts)
    won, votes = np.zeros((pairs.models, pairs.models)), np.zeros((pairs.models, pairs.models))
    won[pairs.a, pairs.b], won[pairs.b, pairs.a] = (
        pairs.a_wins + pairs.ties / 2,
        pairs.b_wins + pairs.ties / 2,
    )
    votes[pairs.a, pairs.b] = votes[pairs.b, pairs.a] = pairs.votes
    return np.divide(won, votes, out=np.zeros_like(won), where=votes > 0), votes


def _by_item(model: Ints, item: Ints, votes: Floats, won: Floats, models: int) -> tuple[Ints, Floats, Floats]:
    """(model, votes, votes won) of each model on each item."""
    from scipy.sparse import coo_array

    shape = (int(item.max(initial=-1)) + 1, models)
    # the two numbers of a pair of model and item travel as one complex number
    table = coo_array((votes + 1j * won, (item, model)), shape).tocsr()
    table.sum_duplicates()
    return table.indices.astype(np.int64), table.data.real, table.data.imag


def _wilson(share: Floats, n: Floats) -> tuple[Floats, Floats]:
    z2 = Z95 * Z95
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * np.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return np.maximum(0.0, centre - half), np.minimum(1.0, centre + half)
