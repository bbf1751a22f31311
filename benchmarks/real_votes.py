"""Rewards learned from real people's votes on arguments (UKPConvArg1), whole debates held out in 5 folds.

    python benchmarks/real_votes.py [--sides length ngram lexical ...] [--seed 0]
    python benchmarks/real_votes.py --quick          a smoke run for the tests: two folds, no decoder

Sides: `length`; `ngram` (scikit-learn, TF-IDF differences and logistic regression); `lexical` (palate.reward.lexical);
`lexical-em` (the same with the annotator model's flips); `frozen` (Bayesian head on the built-in model's last
hidden states); `frozen+lexical`; `lora` (Palate's trainer, all arguments of one debate side in
one tree). Nothing is chosen on held-out debates: penalties by inner folds or by evidence, temperatures on two of the
training debates that a second fit leaves out. Intervals resample debates.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from palate import importing
from palate.config import ImportConfig, RewardConfig
from palate.data.preferences import rankings
from palate.linear_head import LinearHead
from palate.project import Project
from palate.reward.accuracy import accuracy
from palate.reward.lexical import LexicalReward
from palate.reward.mistakes import majority_rule

FILE = "ukpconvarg1_share.jsonl.gz"
DEBATE = r"Debate: (.*?)\.? Argue"
FOLDS = 5
EPOCHS = 10
BINS = 10
Row = dict[str, Any]
Scores = list[list[float]]
Scorer = Callable[[Sequence[Row]], Scores]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sides", nargs="+", choices=tuple(SIDES), default=list(SIDES))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    folder = Path(os.environ.get("PALATE_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (folder / FILE).exists():
        print(f"no {FILE} in {folder} (set PALATE_SHARED_DATA): nothing measured")
        return
    rows = _rows(folder / FILE)
    sides = ["length", "lexical"] if given.quick else given.sides
    if ceiling := majority_rule(rows):
        print(f"a vote agrees with the other votes on its pair: {ceiling[0]} ({ceiling[1]} votes)")
    for side in sides:
        measure(side, rows, 2 if given.quick else FOLDS, given.seed)


def measure(side: str, rows: list[Row], folds: int, seed: int) -> None:
    """Print accuracy against votes and majorities, and the calibration error, over all folds together."""
    started = time.monotonic()
    groups = sorted({row["group"] for row in rows})
    scores: Scores = [[] for _ in rows]
    cooled: Scores = [[] for _ in rows]
    for fold in range(folds):
        held = groups[fold::folds]
        inside = [row for row in rows if row["group"] not in held]
        out = [i for i, row in enumerate(rows) if row["group"] in held]
        temperature = 1.0
        if side != "length":
            inner = groups[(fold + 1) % folds :: folds]
            judge = SIDES[side]([row for row in inside if row["group"] not in inner], seed)
            left = [row for row in inside if row["group"] in inner]
            temperature = fit_temperature(margins(left, judge(left)))
        found = SIDES[side](inside, seed)([rows[i] for i in out])
        for i, row_scores in zip(out, found, strict=True):
            scores[i] = row_scores
            cooled[i] = [score / temperature for score in row_scores]
        print(
            f"  {side}, fold {fold + 1}: {accuracy([rows[i] for i in out], found)}; T {temperature:.2f}",
            flush=True,
        )
    votes, majority = accuracy(rows, scores), accuracy(rows, scores, majority=True)
    assert votes is not None and majority is not None
    before, after = calibration_error(margins(rows, scores)), calibration_error(margins(rows, cooled))
    print(f"{side}\n  votes      {votes}\n  majorities {majority}")
    if side != "length":
        print(f"  ECE {before:.3f}, after temperature {after:.3f}")
    seconds = round(time.monotonic() - started)
    print(json.dumps({"side": side, "seed": seed, "votes": votes.metrics(), "majority": majority.metrics(),
                      "ece": before, "ece_after": after, "seconds": seconds}), flush=True)  # fmt: skip


def margins(rows: Sequence[Row], scores: Scores) -> NDArray[np.float64]:
    """Score of the winner less that of the loser, for each decided vote."""
    found = [
        given[pair["winner"]] - given[pair["loser"]]
        for row, given in zip(rows, scores, strict=True)
        for pair in row["pairs"]
        if not pair["tie"]
    ]
    return np.array(found)


def fit_temperature(wins: NDArray[np.float64]) -> float:
    """The temperature at which `wins` (margins of winners) are most probable (Guo et al. 2017)."""
    found = minimize_scalar(
        lambda t: np.logaddexp(0, -wins / np.exp(t)).mean(), bounds=(-5, 5), method="bounded"
    )
    return float(np.exp(found.x))


def calibration_error(wins: NDArray[np.float64]) -> float:
    """Expected calibration error of the side taken, over BINS bins of equally many votes."""
    order = np.argsort(np.abs(wins), kind="stable")
    error = 0.0
    for part in np.array_split(order, BINS):
        sure = 1 / (1 + np.exp(-np.abs(wins[part])))
        error += (
            len(part) / len(wins) * abs(float(sure.mean()) - float((0.5 * (1 + np.sign(wins[part]))).mean()))
        )
    return error


def _rows(file: Path) -> list[Row]:
    with tempfile.TemporaryDirectory() as place:
        project = Project.create(Path(place) / "debates")
        importing.run(project, ImportConfig((file,), project=project.folder))
        with project.store() as store:
            found: list[Row] = rankings(store, split_by=DEBATE).to_pylist()
    return found


def _length(rows: Sequence[Row], seed: int) -> Scorer:
    return lambda held: [[float(len(text)) for text in row["completions"]] for row in held]


def _ngram(rows: Sequence[Row], seed: int) -> Scorer:
    """TF-IDF of uni- and bigrams, logistic regression on differences; its C by inner folds over debates."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, GroupKFold

    texts = sorted({text for row in rows for text in row["completions"]})
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2, norm=None).fit(texts)
    pairs = [(row, pair) for row in rows for pair in row["pairs"] if not pair["tie"]]
    a, b = (
        words.transform([row["completions"][pair[side]] for row, pair in pairs])
        for side in ("winner", "loser")
    )
    turned = np.where(np.random.default_rng(seed).random(len(pairs)) < 0.5, 1.0, -1.0)
    search = GridSearchCV(
        LogisticRegression(fit_intercept=False, max_iter=200), {"C": [1e-5, 1e-4, 1e-3, 1e-2]},
        cv=GroupKFold(4), scoring="neg_log_loss",
    )  # fmt: skip
    search.fit((a - b).multiply(turned[:, None]).tocsr(), turned, groups=[row["group"] for row, _ in pairs])
    weights = search.best_estimator_.coef_[0]
    return lambda held: [(words.transform(row["completions"]) @ weights).tolist() for row in held]


def _lexical(rows: Sequence[Row], seed: int) -> Scorer:
    return LexicalReward.fit(rows).scores


def _lexical_em(rows: Sequence[Row], seed: int) -> Scorer:
    """The annotators are estimated on the n-gram baseline's own features."""
    from palate.reward import annotators

    plain = LexicalReward.fit(rows)
    texts = {
        one: text for row in rows for one, text in zip(row["completion_ids"], row["completions"], strict=True)
    }
    vectors = dict(zip(texts, plain.vectors(list(texts.values())), strict=True))
    found = annotators.estimate(rows, vectors)
    return (plain if found is None else LexicalReward.fit(found.applied(rows, "flips"))).scores


def _head(rows: Sequence[Row], vectors: Callable[[Sequence[str]], NDArray[np.float64]]) -> LinearHead:
    ids = sorted({one for row in rows for one in row["completion_ids"]})
    matrix, at = vectors(ids), {one: i for i, one in enumerate(ids)}
    total: dict[tuple[int, int, float], float] = {}
    for row in rows:
        for pair in row["pairs"]:
            a, b = (at[row["completion_ids"][pair[side]]] for side in ("winner", "loser"))
            key = (a, b, 0.5 if pair["tie"] else 1.0)
            total[key] = total.get(key, 0.0) + pair["weight"]
    a, b, outcomes = (np.array(column) for column in zip(*sorted(total), strict=True))
    z = matrix[a.astype(int)] - matrix[b.astype(int)]
    return LinearHead.by_evidence(z, outcomes, np.array([total[key] for key in sorted(total)]))


_states: dict[str, NDArray[np.float64]] = {}


def _hidden(rows: Sequence[Row]) -> dict[str, NDArray[np.float64]]:
    """Last hidden states of the built-in model by completion id, made once and kept."""
    import torch

    from palate.hardware import probe
    from palate.models import load
    from palate.reward.model import RewardModel
    from palate.training import encode

    merged = [row for row in _merged(rows) if any(one not in _states for one in row["completion_ids"])]
    if merged:
        loaded = load(None, "builtin", probe("cpu", "float32"))
        model = RewardModel.new(loaded, "freeze", 1024, 0)
        with torch.no_grad():
            for row, tree in zip(merged, encode(merged, loaded.encoder, 1024), strict=True):
                states = model.forward.last_hidden([tree])[0].double().numpy()
                _states.update(zip(row["completion_ids"], states, strict=True))
    return _states


def _frozen(rows: Sequence[Row], seed: int, lexical: LexicalReward | None = None) -> Scorer:
    texts = {
        one: text for row in rows for one, text in zip(row["completion_ids"], row["completions"], strict=True)
    }
    states = _hidden(rows)
    train = np.stack([states[one] for one in sorted(texts)])
    mean, std = train.mean(axis=0), train.std(axis=0) + 1e-9

    def vectors(ids: Sequence[str]) -> NDArray[np.float64]:
        hidden = (np.stack([_states[one] for one in ids]) - mean) / std
        if lexical is None:
            return hidden
        return np.concatenate([0.3 * hidden, lexical.vectors([texts[one] for one in ids])], axis=1)

    head = _head(rows, vectors)

    def scores(held: Sequence[Row]) -> Scores:
        _hidden(held)
        for row in held:
            texts.update(zip(row["completion_ids"], row["completions"], strict=True))
        return [head.score(vectors(row["completion_ids"]))[0].tolist() for row in held]

    return scores


def _frozen_lexical(rows: Sequence[Row], seed: int) -> Scorer:
    return _frozen(rows, seed, LexicalReward.fit(rows))


def _merged(rows: Sequence[Row]) -> list[Row]:
    """All comparisons of a prompt as one ranking with all its answers, so that each is computed once."""
    merged: dict[str, Row] = {}
    for row in rows:
        one = merged.setdefault(
            row["prompt_id"],
            _emptied(row),
        )
        for name, text, reason in zip(
            row["completion_ids"], row["completions"], row["finish_reasons"], strict=True
        ):
            if name not in one["completion_ids"]:
                one["completion_ids"].append(name)
                one["completions"].append(text)
                one["finish_reasons"].append(reason)
        place = [one["completion_ids"].index(name) for name in row["completion_ids"]]
        one["pairs"] += [
            {**pair, "winner": place[pair["winner"]], "loser": place[pair["loser"]]} for pair in row["pairs"]
        ]
    return list(merged.values())


def _emptied(row: Row) -> Row:
    """The row without answers and votes."""
    return {**row, "completion_ids": [], "completions": [], "finish_reasons": [], "pairs": []}


def _lora(rows: Sequence[Row], seed: int) -> Scorer:
    from palate.hardware import probe
    from palate.models import load
    from palate.reward.fitting import train_on
    from palate.reward.model import RewardModel
    from palate.training import encode

    merged = _merged(rows)
    loaded = load(None, "builtin", probe("cpu", "float32"))
    config = replace(RewardConfig(), epochs=EPOCHS, batch_size=1, seed=seed)
    model = RewardModel.new(loaded, config.method, config.max_length, seed, config.lora_rank)
    train_on(model, merged, encode(merged, loaded.encoder, config.max_length), config, lambda *_, **__: None)

    def scores(held: Sequence[Row]) -> Scores:
        found: dict[str, float] = {}
        whole = _merged(held)
        for row, given in zip(
            whole, model.score_trees(encode(whole, loaded.encoder, config.max_length)), strict=True
        ):
            found.update(zip(row["completion_ids"], given, strict=True))
        return [[found[one] for one in row["completion_ids"]] for row in held]

    return scores


SIDES: dict[str, Callable[[Sequence[Row], int], Scorer]] = {
    "length": _length, "ngram": _ngram, "lexical": _lexical, "lexical-em": _lexical_em, "frozen": _frozen,
    "frozen+lexical": _frozen_lexical, "lora": _lora,
}  # fmt: skip


if __name__ == "__main__":
    main()
