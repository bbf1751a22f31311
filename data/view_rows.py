"""The pairs that a view gives training, as SQL over the records: what `rankings` puts in place of every vote's own.

A pair weighs 1 / (pairs of its vote), as without a view. Under `majority` a comparison is one decision and weighs 1,
shared among its labelled pairs; a label stands there once per vote that gave it (a split: per vote on the pair), which
share its weight, so that every row still leads to its votes. Under `reliability` a vote's weight is multiplied by its
annotator's and divided by the mean over what is kept, so that the mean vote weighs 1.
"""

from collections.abc import Mapping
from typing import Any

from palate.config import UserError
from palate.data.training_views import View

CLOSE = 1e-9  # a share this little below min_agreement is rounding

# the votes that count, pair by pair; a vote's pairs are counted before any of them is left out
_VOTED = """voted AS (
    SELECT p.vote_id, p.comparison_id, p.annotator_id, p.winner, p.loser, p.tie, p.strength,
           coalesce(p.adjudicated, false) AS adjudicated, p.winner_shown_first, least(p.winner, p.loser) AS one,
           greatest(p.winner, p.loser) AS other, 1.0 / count(*) OVER (PARTITION BY p.vote_id) AS share
    FROM preference p
    WHERE {where}
)"""
# an annotator's first answer to a comparison, shown again or not
_FIRST = """firsts AS (
    SELECT id FROM (
        SELECT v.id, row_number() OVER (PARTITION BY v.annotator_id, coalesce(c.repeats, c.id)
                                        ORDER BY v.created_at, hash(v.id)) AS place
        FROM current_vote v JOIN comparison c ON c.id = v.comparison_id WHERE v.verdict <> 'skip'
    ) WHERE place = 1
)"""
_DECIDED = """decided AS (
    SELECT DISTINCT p.comparison_id FROM (SELECT *, id AS vote_id FROM current_vote) p
    WHERE p.adjudicated AND p.verdict <> 'skip' AND {where}
)"""
_COUNTING = """counting AS (
    SELECT v.*, {weight} AS vote_weight FROM voted v{weights}
    WHERE {where}
)"""
_LABELS = """labels AS (
    SELECT *, CASE WHEN first_wins > greatest(second_wins, ties) THEN one
                   WHEN second_wins > greatest(first_wins, ties) THEN other END AS best,
           ties > greatest(first_wins, second_wins) AS tied,
           1.0 / count(*) OVER (PARTITION BY comparison_id) AS part
    FROM (SELECT comparison_id, one, other, count(*) FILTER (NOT tie AND winner = one) AS first_wins,
                 count(*) FILTER (NOT tie AND winner = other) AS second_wins, count(*) FILTER (tie) AS ties,
                 bool_or(adjudicated) AS adjudicated
          FROM counting GROUP BY comparison_id, one, other)
)"""
_KEPT = "kept AS (SELECT * FROM labels WHERE {where})"
_BY_VOTE = """chosen AS (
    SELECT c.comparison_id, c.winner, c.loser, c.tie, c.strength, c.vote_id, c.annotator_id, c.winner_shown_first,
           c.adjudicated, {weight} AS weight
    FROM counting c{join}
    WHERE {where}
)"""
_BY_MAJORITY = """chosen AS (
    SELECT c.comparison_id, coalesce(k.best, c.one) AS winner, CASE WHEN k.best = c.other THEN c.one ELSE c.other END
           AS loser, k.best IS NULL AS tie, CASE WHEN c.tie = (k.best IS NULL) THEN c.strength END AS strength,
           c.vote_id, c.annotator_id, c.adjudicated,
           CASE WHEN c.winner = coalesce(k.best, c.one) THEN c.winner_shown_first ELSE NOT c.winner_shown_first END
           AS winner_shown_first,
           k.part / count(*) OVER (PARTITION BY c.comparison_id, c.one, c.other) AS weight
    FROM counting c JOIN kept k ON k.comparison_id = c.comparison_id AND k.one = c.one AND k.other = c.other
    WHERE {where}
)"""
# decimals add up to the same whatever the order in which threads bring them
_NORMALISED = """c.share * c.vote_weight * (sum(c.share::DECIMAL(38, 15)) OVER ())::DOUBLE
           / (sum((c.share * c.vote_weight)::DECIMAL(38, 15)) OVER ())::DOUBLE"""

Parts = tuple[list[str], list[Any]]  # conditions, the values of their question marks


def chosen(view: View) -> tuple[str, list[Any]]:
    """(WITH clauses that end in `chosen`, their parameters): comparison_id, winner, loser, tie, strength, weight,
    vote_id, annotator_id, winner_shown_first, adjudicated. An even split becomes a tie.
    """
    asked = view.definition
    steps, params = list[str](), list[Any]()

    def add(sql: str, parts: Parts = ([], []), **more: str) -> None:
        steps.append(sql.format(where=" AND ".join(parts[0]) or "true", **more))
        params.extend(parts[1])

    conditions, values = _votes(view)
    if asked.decided:
        add(_FIRST)
        once = "(p.adjudicated OR p.vote_id IN (SELECT id FROM firsts))"
        add(_VOTED, ([*conditions, once], values))
        add(_DECIDED, (conditions, values))
    else:
        add(_VOTED, (conditions, values))
    conditions, values = _pairs(view)
    weight, weights = "1.0", ""
    if asked.aggregation == "reliability":
        known = dict(sorted((view.weights or {}).items()))
        weight, weights = _weight(known)
        params.extend(() if not known else (list(known), list(known.values())))
        conditions.append("vote_weight > 0")
    add(_COUNTING, (conditions, values), weight=weight, weights=weights)
    majority = asked.aggregation == "majority"
    if majority or asked.min_agreement is not None:
        add(_LABELS)
        add(_KEPT, _agreeing(view))
    if majority:
        behind = (
            "CASE WHEN k.best IS NOT NULL THEN c.winner = k.best AND NOT c.tie ELSE c.tie OR NOT k.tied END"
        )
        add(_BY_MAJORITY, ([behind, *([] if asked.ties else ["k.best IS NOT NULL"])], []))
    else:
        join = ""
        if asked.min_agreement is not None:
            join = " JOIN kept k ON k.comparison_id = c.comparison_id AND k.one = c.one AND k.other = c.other"
        weighted = _NORMALISED if asked.aggregation == "reliability" else "c.share"
        add(_BY_VOTE, ([] if asked.ties else ["NOT c.tie"], []), weight=weighted, join=join)
    return "WITH " + ", ".join(steps), params


def _votes(view: View) -> Parts:
    """Which votes count; `p` has vote_id, prompt_id, annotator_id, annotator_kind and purpose."""
    asked = view.definition
    conditions, values = [f"p.purpose IN ({_listed(asked.purposes)})"], list[Any]()
    if asked.kinds:
        conditions.append(f"p.annotator_kind IN ({_listed(asked.kinds)})")
    if asked.exclude:
        conditions.append("p.annotator_id NOT IN (SELECT unnest(?::VARCHAR[]))")
        values.append(list(asked.exclude))
    for condition, value in (("source = ?", asked.source), ("list_contains(tags, ?)", asked.tag)):
        if value is not None:
            conditions.append(f"p.prompt_id IN (SELECT id FROM prompt WHERE {condition})")
            values.append(value)
    for sign, day in ((">=", asked.since), ("<=", asked.until)):
        if day is not None:
            conditions.append(f"p.vote_id IN (SELECT id FROM vote WHERE created_at::DATE {sign} ?::DATE)")
            values.append(day.isoformat())
    return conditions, values


def _pairs(view: View) -> Parts:
    """Which pairs of the votes count: by strength, and where no adjudicated vote decides."""
    asked = view.definition
    conditions, values = list[str](), list[Any]()
    if asked.min_strength is not None:
        # strength is asked of two completions; 0 (hardly) counts as 1
        two = "v.comparison_id IN (SELECT id FROM comparison WHERE len(completion_ids) = 2)"
        strong = f"v.tie OR (v.strength IS NOT NULL AND greatest(v.strength, 1) >= ? AND {two})"
        unknown = f" OR v.strength IS NULL OR NOT {two}" if asked.unknown_strength else ""
        conditions.append(f"({strong}{unknown})")
        values.append(asked.min_strength)
    if asked.decided:
        conditions.append("(v.adjudicated OR v.comparison_id NOT IN (SELECT comparison_id FROM decided))")
    return conditions, values


def _weight(known: Mapping[str, float]) -> tuple[str, str]:
    """(a vote's weight, what to join for it): unknown annotators weigh as the mean, adjudicated votes as the best."""
    if not known:
        return "1.0", ""
    if not any(weight > 0 for weight in known.values()):
        raise UserError(
            "no annotator of this view is better than chance, so no vote has a weight: look at palate stats, or "
            "refresh the view"
        )
    mean, best = mean_and_best(known)
    table = "SELECT unnest(?::VARCHAR[]) AS annotator_id, unnest(?::DOUBLE[]) AS weight"
    return (
        f"CASE WHEN v.adjudicated THEN {best!r}::DOUBLE ELSE coalesce(w.weight, {mean!r}::DOUBLE) END",
        f" LEFT JOIN ({table}) w ON w.annotator_id = v.annotator_id",
    )


def mean_and_best(weights: Mapping[str, float]) -> tuple[float, float]:
    """What votes of unknown annotators and adjudicated votes weigh: the mean and the largest of the weights; 1 and 1
    where there are none.
    """
    values = sorted(weights.values())
    return (sum(values) / len(values), values[-1]) if values else (1.0, 1.0)


def _agreeing(view: View) -> Parts:
    """Which pairs are agreed on enough. Where a vote decides, there is nothing to agree on."""
    asked = view.definition
    if asked.min_agreement is None:
        return [], []
    votes = "(first_wins + second_wins + ties)"
    enough = f"(greatest(first_wins, second_wins, ties) / {votes} >= ? AND {votes} > 1)"
    others = (f" OR {votes} = 1" if asked.keep_single else "") + (" OR adjudicated" if asked.decided else "")
    return [f"({enough}{others})"], [asked.min_agreement - CLOSE]


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"'{name}'" for name in names)  # each is one of a few known words
