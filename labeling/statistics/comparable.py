"""Which models can be ordered by their votes at all: the graph of who met whom, and who beat whom.

Strengths exist when votes link every model to every other, and are finite when no group of models won all its votes
against the rest (Ford 1957, "Solution of a ranking problem from binary comparisons").
"""

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def linked(models: int, a: Ints, b: Ints, votes: Floats) -> Bools:
    """(M,) the models of the group with most votes, within which some chain of votes links any two."""
    if not len(a):
        return np.zeros(models, dtype=np.bool_)
    label = _components(models, a, b, "weak")
    most = np.bincount(label[a], votes, models).argmax()
    return np.asarray(label == most)


def strong_groups(models: int, winner: Ints, loser: Ints) -> Ints:
    """(M,) labels of groups within which everyone has beaten everyone, directly or through others."""
    return _components(models, winner, loser, "strong")


def apart(group: Ints) -> Bools:
    """(M,) the models outside the largest of the strong groups: all they won or lost against it went one way."""
    return np.asarray(group != np.bincount(group).argmax())


def _components(models: int, a: Ints, b: Ints, connection: str) -> Ints:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(a), dtype=np.int8), (a, b)), (models, models))
    return np.asarray(connected_components(graph, directed=True, connection=connection)[1], dtype=np.int64)
