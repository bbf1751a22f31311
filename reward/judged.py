"""What a reward run says of itself beside its accuracy: calibration, where it errs, annotators, what more votes would buy.

    parts = judged(train_rows, held_rows, held_scores, ...)        # keyword arguments of report.Findings

Each part is None where there is too little to say something; the report says so. Not here: how any of it is computed.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palate.data.any_store import AnyStore
from palate.linear_head import LinearHead
from palate.reward.accuracy import Accuracy, Row, accuracy
from palate.reward.breakdown import breakdown, leave_out
from palate.reward.calibration import calibrate
from palate.reward.learning_curve import learning_curve
from palate.reward.lexical import LexicalReward
from palate.reward.mistakes import leans, majority_rule, mistakes

Features = Mapping[str, NDArray[np.floating]]


def judged(
    store: AnyStore,
    train: Sequence[Row],
    held: Sequence[Row],
    scores: Sequence[Sequence[float]],
    scale: float,
    features: Features | None,
) -> dict[str, Any]:
    """From rows to learn from and rows held out with their scores; `scale`: log-odds per unit of score; `features`
    (D,) by completion id, of the base as it is."""
    votes = [pair for row in train for pair in row["pairs"]]
    used = {"rankings": len(train), "pairs": len(votes), "votes": len({pair["vote_id"] for pair in votes}),
            "annotators": len({pair["annotator_id"] for pair in votes}), "held-out rankings": len(held)}  # fmt: skip
    if bad := sum(row.get("all_bad") or 0 for row in train):
        used["votes that all is bad"] = bad
    calibration = calibrate(held, scores, scale)
    outsiders = () if features is None else leave_out([*train, *held], features)
    return {
        "used": used,
        "baseline": accuracy(held, LexicalReward.fit(train).scores(held)) if held else None,
        "ceiling": majority_rule(held),
        "leans": leans(held, scores) if held else None,
        "mistakes": mistakes(held, scores),
        "calibration": calibration,
        "reliability": calibration.bins if calibration else (),
        "breakdown": breakdown(held, scores, _sources(store, held), outsiders, _sorts(store)),
        "learning_curve": None if features is None else learning_curve(train, held, features),
    }


def with_and_without(
    plain: Sequence[Row], believed: Sequence[Row], held: Sequence[Row], features: Features
) -> tuple[Accuracy, Accuracy] | None:
    """Accuracy on held-out votes of a linear head on frozen features that learned from all votes alike, and of one that
    learned from votes as they are believed (annotators.applied); None where no held-out vote decides, or no vote is
    believed."""
    if not any(pair["weight"] > 0 for row in believed for pair in row["pairs"]):
        return None  # nobody is believed
    found = [accuracy(held, _head_scores(rows, held, features)) for rows in (plain, believed)]
    return None if found[0] is None or found[1] is None else (found[0], found[1])


def _head_scores(rows: Sequence[Row], held: Sequence[Row], features: Features) -> list[list[float]]:
    picked = [
        (features[row["completion_ids"][pair["winner"]]] - features[row["completion_ids"][pair["loser"]]],
         0.5 if pair["tie"] else 1.0 - pair.get("flip", 0.0), pair["weight"])
        for row in rows for pair in row["pairs"] if pair["weight"] > 0
    ]  # fmt: skip
    z, outcomes, weights = (np.array(column, dtype=np.float64) for column in zip(*picked, strict=True))
    head = LinearHead.by_evidence(z, outcomes, weights)
    return [[float(features[one] @ head.mean) for one in row["completion_ids"]] for row in held]


def _sources(store: AnyStore, rows: Sequence[Row]) -> dict[str, str]:
    """Source by prompt id."""
    ids = sorted({row["prompt_id"] for row in rows})
    found = store.rows("SELECT id, source FROM prompt WHERE id IN (SELECT unnest(?::VARCHAR[]))", [ids])
    return {str(row["id"]): str(row["source"]) for row in found}


def _sorts(store: AnyStore) -> dict[str, str]:
    """human, rule or model, by annotator id."""
    return {str(row["id"]): str(row["kind"]) for row in store.rows("SELECT id, kind FROM annotator")}
