"""Train a reward model on every ranking at once, and say how far to trust it.

    palate reward               or   run(Project.open(folder), RewardConfig(folder))

K completions of a prompt are one forward pass over its tree and give all their pairs (k-wise loss). The accuracy
on held-out prompts stands beside "the longer one wins" on the same pairs, both with intervals; with `--folds` it
is cross-validated over whole groups of prompts. Not here: loss (losses.py), loop (training.py), model (model.py).
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from palate import lineage, lineage_text
from palate.checkpoints import Checkpoints
from palate.config import RewardConfig, UserError
from palate.data.records import Run
from palate.data.training_views import View
from palate.doctor import (
    check_moved,
    check_padding,
    check_reload,
    check_template,
    check_trainable,
    fingerprint,
)
from palate.hardware import probe
from palate.models import Loaded, load
from palate.parallel import team
from palate.project import Project
from palate.reward.accuracy import Accuracy, Row, accuracy, length_correlation
from palate.reward.annotators import Annotators, changed, estimate, names, why_not
from palate.reward.features import frozen
from palate.reward.fitting import pick, train_on
from palate.reward.judged import judged, with_and_without
from palate.reward.model import RewardModel, read
from palate.reward.report import About, Findings, page, report
from palate.reward.uncertainty import Check
from palate.reward.uncertainty import check as check_uncertainty
from palate.reward.uncertainty import fit as fit_uncertainty
from palate.runs import ActiveRun
from palate.sequences import EncodedTree
from palate.training import (
    encode,
    training,
)

HELD_OUT_SHARE = 0.1  # of groups, when no prompt is marked as test
FEATURES = 64  # numbers per completion, for the annotator model: few votes, few numbers
CHECKED = 4  # rankings scored again by the checks
RANKINGS = 4_000  # that say how sure the last layer is
Item = TypeVar("Item")


def run(project: Project, asked: RewardConfig) -> Run:
    """Train on the train split, judge on the test split; returns the finished run."""
    with training(project, asked, "reward", asked.split_by) as (active, config, taken, ref):
        hardware = probe(config.device, config.dtype)
        loaded = load(project, ref, hardware, scores=True)
        check_template(project.known(active.record.parents), loaded.encoder.template_hash)
        active.update(template_hash=loaded.encoder.template_hash)
        rows = taken.table.to_pylist()
        print(f"{active.id}: reward model on {ref}, {len(rows)} rankings ({hardware})")
        trees = encode(rows, loaded.encoder, config.max_length)
        team().tell((config, ref, rows))
        train, test, held_out_by = split(rows)
        features = _features(loaded, rows, trees, config)
        known = _for_annotators(rows, config, taken.view, features)
        folds = cross_validate(loaded, rows, trees, config, known) if config.folds else None
        learned, annotators = believed(pick(rows, train), known, config)
        if annotators is not None:
            _tell_annotators(project, active, annotators, changed(pick(rows, train), learned))

        team().tell((train, learned))
        model = _new(loaded, config)
        check_trainable(model.modules)
        before = fingerprint(model.modules)
        history = train_on(model, learned, pick(trees, train), config, active.log, Checkpoints(active))
        check_moved(before, fingerprint(model.modules))
        team().tell(None)
        _set_scale(model, pick(trees, train))
        held = pick(rows, test), pick(trees, test)
        checked = _set_uncertainty(model, learned, pick(trees, train), held, config)
        scores = model.score_trees(trees)
        few = trees[:CHECKED]
        check_padding(_flat([model.score_trees([tree])[0] for tree in few]), _flat(scores[:CHECKED]))
        model.save(active.path / "reward")
        model.detach()
        reread = read(loaded, active.path / "reward")
        reload_error = check_reload(_flat(scores[:CHECKED]), _flat(reread.score_trees(few)))
        active.update(artefact={"kind": "reward", "path": "reward", "base": ref})

        held_rows, held_scores = pick(rows, test), pick(scores, test)
        found = Findings(
            base=ref,
            trained_on=len(train),
            held_out=len(test),
            held_out_by=held_out_by,
            loss=(history[0]["loss"], history[-1]["loss"]),
            votes=accuracy(held_rows, held_scores),
            majority=accuracy(held_rows, held_scores, majority=True),
            folds=folds,
            length_correlation=length_correlation(held_rows or rows, held_scores or scores),
            reload_error=reload_error,
            uncertainty=checked,
            annotators=annotators,
            told_apart=with_and_without(pick(rows, train), learned, held_rows, known)
            if annotators and known
            else None,
            **_parts(project, pick(rows, train), held_rows, held_scores, model.std, features),
        )
        active.metrics(**found.metrics())
        _write_reports(project, active, found)
        print(found.summary())
        print(f"made {active.path / 'reward'}, report.html and report.md beside it")
        print("next: palate dpo, or palate eval to compare models by this reward")
    return active.record


def follow(project: Project) -> None:
    """Help to train what the first process tells (palate.parallel), until it has nothing more."""
    config, ref, rows = team().hear()
    loaded = load(project, ref, probe(config.device, config.dtype), scores=True)
    trees = encode(rows, loaded.encoder, config.max_length)
    while (told := team().hear()) is not None:
        inside, learned = told
        model = _new(loaded, config)
        train_on(model, learned, pick(trees, inside), config, lambda *_, **__: None)
        model.detach()


def _tell_annotators(project: Project, active: ActiveRun, found: Annotators, effect: str) -> None:
    """Keep what was found out about the annotators with the run, where DPO looks for it, and say it."""
    found.save(active.path)
    with project.store() as store:
        print("\n".join(f"  {line}" for line in found.lines(names(store))))
    print(f"  so {effect}")


def _write_reports(project: Project, active: ActiveRun, found: Findings) -> None:
    """report.md and report.html."""
    (active.path / "report.md").write_text(report(active.id, found), encoding="utf-8")
    about = About(
        active.id, project.name, active.record.created_at[:16].replace("T", " ") + " UTC", active.record.config,
        lineage_text.text(lineage.walk(project, active.id)),
    )  # fmt: skip
    (active.path / "report.html").write_text(page(about, found), encoding="utf-8")


def _features(
    loaded: Loaded, rows: Sequence[Row], trees: Sequence[EncodedTree], config: RewardConfig
) -> dict[str, NDArray[np.float32]] | None:
    """Frozen features of the ranked completions, where something is to be made of them."""
    wanted = config.annotator_model != "off" or config.learning_curve
    return frozen(loaded, rows, trees, FEATURES) if wanted else None


def _for_annotators(
    rows: Sequence[Row],
    config: RewardConfig,
    view: View | None,
    features: dict[str, NDArray[np.float32]] | None,
) -> dict[str, NDArray[np.float32]] | None:
    """The features, if annotators can be told apart; None, with the reason, when not."""
    if config.annotator_model == "off":
        return None
    if (reason := why_not(rows, view)) is not None:
        print(f"  {reason}")
        return None
    return features


def _set_uncertainty(
    model: RewardModel,
    rows: Sequence[Row],
    trees: Sequence[EncodedTree],
    held: tuple[Sequence[Row], Sequence[EncodedTree]],
    config: RewardConfig,
) -> Check | None:
    """How sure the last layer is, from at most RANKINGS rankings by their order, which is by hash; and, on as many held-out
    ones, how that compares with the other way."""
    if config.uncertainty == "off":
        return None
    weight = model.head.weight.detach().cpu().numpy()[0]
    states = model.states(trees[:RANKINGS])
    found = fit_uncertainty(states, rows[:RANKINGS], weight, config.uncertainty, config.seed)
    model.uncertainty = found
    other = fit_uncertainty(
        states,
        rows[:RANKINGS],
        weight,
        "ensemble" if config.uncertainty == "laplace" else "laplace",
        config.seed,
    )
    if found is None or other is None or not held[0]:
        return None
    outside = model.states(held[1][:RANKINGS])
    return check_uncertainty(found, other, config.uncertainty, outside, held[0][:RANKINGS], weight)


def _parts(
    project: Project,
    train: Sequence[Row],
    held: Sequence[Row],
    scores: Sequence[Sequence[float]],
    scale: float,
    features: dict[str, NDArray[np.float32]] | None,
) -> dict[str, Any]:
    with project.store() as store:
        return judged(store, train, held, scores, scale, features)


def believed(
    rows: Sequence[Row], features: Mapping[str, NDArray[np.float32]] | None, config: RewardConfig
) -> tuple[list[Row], Annotators | None]:
    """The rows with what their own votes say of who gave them, as `annotator_model` wants it; unchanged without features."""
    found = None if features is None else estimate(rows, features)
    if found is None or config.annotator_model == "off":
        return list(rows), None
    return found.applied(rows, config.annotator_model), found


def split(rows: Sequence[Row]) -> tuple[list[int], list[int], str]:
    """(rows to train on, rows held out, what decided): the test split, else a tenth of the groups by hash."""
    test = [i for i, row in enumerate(rows) if row["split"] == "test" and row["pairs"]]
    train = [i for i, row in enumerate(rows) if row["split"] != "test"]
    if not train:
        raise UserError("all votes are on held-out (test) prompts: rank completions of training prompts too")
    if test:
        return train, test, "the test split of the prompts"
    groups = _by_hash(rows)
    if len(groups) < 2:
        return train, [], "nothing, as all votes are on one group of prompts"
    held = set(groups[: max(1, round(HELD_OUT_SHARE * len(groups)))])
    test = [i for i in train if rows[i]["group"] in held and rows[i]["pairs"]]
    return (
        [i for i in train if rows[i]["group"] not in held],
        test,
        "hash, as no prompt with votes is in the test split",
    )


def _new(loaded: Loaded, config: RewardConfig) -> RewardModel:
    return RewardModel.new(
        loaded, config.method, config.max_length, config.seed, config.lora_rank, config.layers
    )


def cross_validate(
    loaded: Loaded,
    rows: Sequence[Row],
    trees: Sequence[EncodedTree],
    config: RewardConfig,
    features: Mapping[str, NDArray[np.float32]] | None = None,
) -> Accuracy | None:
    """Each fold's groups are judged by a model that never saw them; one accuracy over all of them."""
    groups = _by_hash(rows)
    if len(groups) < config.folds:
        raise UserError(
            f"--folds {config.folds} needs as many groups of prompts, there are {len(groups)}; use fewer"
        )
    scores: list[list[float]] = [[] for _ in rows]
    for fold in range(config.folds):
        held = set(groups[fold :: config.folds])
        inside = [i for i, row in enumerate(rows) if row["group"] not in held]
        outside = [i for i, row in enumerate(rows) if row["group"] in held]
        model = _new(loaded, config)
        learned, _ = believed(pick(rows, inside), features, config)
        team().tell((inside, learned))
        train_on(model, learned, pick(trees, inside), config, lambda *_, **__: None)
        _set_scale(model, pick(trees, inside))
        for index, found in zip(outside, model.score_trees(pick(trees, outside)), strict=True):
            scores[index] = found
        model.detach()
        print(
            f"  fold {fold + 1} of {config.folds}: {len(held)} groups held out, {accuracy(pick(rows, outside), pick(scores, outside))}"
        )
    return accuracy(rows, scores)


def _by_hash(rows: Sequence[Row]) -> list[str]:
    """The groups in an order that depends on nothing but their names."""
    return sorted(
        {row["group"] for row in rows}, key=lambda group: hashlib.sha256(f"fold:{group}".encode()).hexdigest()
    )


def _set_scale(model: RewardModel, trees: Sequence[EncodedTree]) -> None:
    """Mean 0 and spread 1 over the training completions, so that rewards of different runs compare."""
    model.mean, model.std = 0.0, 1.0
    raw = np.concatenate(model.score_trees(trees))
    model.mean, model.std = float(raw.mean()), float(raw.std()) or 1.0


def _flat(scores: Sequence[Sequence[float]]) -> Tensor:
    return torch.tensor([score for row in scores for score in row])
