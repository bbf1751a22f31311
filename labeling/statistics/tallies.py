"""How often each pair of completions was judged how: the one aggregate that most figures start from.

Ten million judgements become a row per pair of completions; agreement, models, style and disagreement all work on
that. Left out: the same annotator's second answer to the same item, and adjudications (whose lead saw the others').
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palate.data.facts import Facts
from palate.labeling.statistics.scope import Scope

Ints = NDArray[np.int32]
Floats = NDArray[np.float64]
GRADES = tuple(range(-4, 5))  # the columns of `counts`: -4 and 4 are decisive votes of unknown strength

AT_ONCE = 2_000_000  # judgements counted in one step of numpy, which lets no other thread run meanwhile

_PLACES = """
SELECT (unit * 9 + grade + 4)::INTEGER AS place FROM judgement j WHERE {where} AND NOT again AND NOT adjudicated
"""
_UNITS = "SELECT item, model_a, model_b, length, headers, lists, bold, log_length FROM unit ORDER BY code"


@dataclass(frozen=True)
class Tallies:
    """One row per pair of completions (a, b) that was judged. U = pairs."""

    unit: Ints  # (U,) codes
    item: Ints  # (U,)
    model_a: Ints  # (U,) codes of models
    model_b: Ints
    style: Floats  # (U, 4) a minus b over their sum + 1: length, headers, lists, bold
    log_length: Floats  # (U,) ln of the lengths' ratio
    counts: Ints  # (U, 9) votes by grade, in the order of GRADES

    @property
    def b_wins(self) -> Ints:
        """(U,) votes for b."""
        return np.asarray(self.counts[:, :4].sum(1, dtype=np.int32))

    @property
    def ties(self) -> Ints:
        """(U,) votes for neither."""
        return self.counts[:, 4]

    @property
    def a_wins(self) -> Ints:
        """(U,) votes for a."""
        return np.asarray(self.counts[:, 5:].sum(1, dtype=np.int32))


def tallies(facts: Facts, scope: Scope) -> Tallies:
    """The tallies of a scope; computed once until a vote comes in."""
    return facts.remember(("tallies", scope), lambda: _read(facts, scope))


def _read(facts: Facts, scope: Scope) -> Tallies:
    where, params = scope.where("j")
    units = facts.remember(("units",), lambda: facts.columns(_UNITS))
    # counting here takes half the time of a GROUP BY with hundreds of thousands of groups
    places = np.asarray(facts.columns(_PLACES.format(where=where), params)["place"])
    counts = np.zeros(len(units["item"]) * len(GRADES), dtype=np.int32)
    for start in range(0, len(places), AT_ONCE):
        counts += np.bincount(places[start : start + AT_ONCE], minlength=len(counts)).astype(np.int32)
    by_unit = counts.reshape(-1, len(GRADES))
    unit = np.flatnonzero(by_unit.any(1))
    style = np.stack([units[name][unit] for name in ("length", "headers", "lists", "bold")], axis=1)
    return Tallies(
        unit.astype(np.int32),
        units["item"][unit],
        units["model_a"][unit],
        units["model_b"][unit],
        style.astype(np.float64),
        units["log_length"][unit].astype(np.float64),
        by_unit[unit],
    )
