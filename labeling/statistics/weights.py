"""How much each annotator's vote counts in a view by reliability.

The weight is the log-odds of naming the better one of two completions, log(eta / (1 - eta)): votes that are added
up with these weights decide best among independent annotators (Nitzan and Paroush 1982, "Optimal Decision Rules in
Uncertain Dichotomous Choice Situations", theorem 1). eta is the annotator's reliability as the Annotators screen
shows it (reliability.by_models), with and without two annotators on the same pair. An annotator no better than chance
weighs nothing; nobody weighs less, since a vote turned around would be an answer that nobody gave.
"""

import numpy as np

from palate.data.facts import Facts
from palate.data.store import Store
from palate.data.training_views import KINDS, Definition, View, checked_name
from palate.labeling.statistics.grouped import Floats
from palate.labeling.statistics.judged import judged, reliabilities
from palate.labeling.statistics.scope import Scope


def log_odds(eta: Floats) -> Floats:
    """(K,) weights >= 0 from (K,) probabilities of naming the better completion."""
    inside = np.clip(eta, 1e-6, 1 - 1e-6)
    return np.maximum(0.0, np.log(inside / (1 - inside)))


def weights(facts: Facts, scope: Scope) -> dict[str, float]:
    """Weights by annotator id, of those who decided a pair that tells about them.

    They are judged as on the Annotators screen: second answers, adjudicated votes and actively chosen pairs say
    nothing about a person.
    """
    if not (judged(facts, scope).won != 0).any():
        return {}
    found = reliabilities(facts, scope)
    people = facts.rows("SELECT code, id FROM annotator ORDER BY code")
    made = log_odds(found.eta)
    return {
        str(row["id"]): round(float(made[row["code"]]), 4) for row in people if found.votes[row["code"]] > 0
    }


def view_weights(facts: Facts, definition: Definition) -> dict[str, float] | None:
    """The weights that a view keeps, from all votes of its kinds of annotators; None when it needs none."""
    if definition.aggregation != "reliability":
        return None
    made: dict[str, float] = {}
    for kind in definition.kinds or KINDS:
        made |= weights(facts, Scope(kind))
    return made


def save_view(store: Store, facts: Facts, name: str, definition: Definition, by: str | None = None) -> View:
    """Save a view under a name, with the weights that the votes give now; returns it."""
    made = View(checked_name(name), definition, view_weights(facts, definition), by)
    store.put_view(made.name, definition.as_dict(), made.weights, by)
    return made
