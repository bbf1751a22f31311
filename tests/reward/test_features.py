"""Frozen features: the same completion has the same vector, projections keep their axes, only what is missing is made."""

from collections.abc import Callable

import numpy as np
import pytest

from palate.config import RewardFeaturesConfig, UserError
from palate.data import features as stored
from palate.data.records import Comparison, Completion
from palate.project import Project
from palate.reward import features
from palate.reward.features import Projection

Make = Callable[..., Project]


def config(project: Project, **changes: object) -> RewardFeaturesConfig:
    return RewardFeaturesConfig(project.folder, device="cpu", dtype="float32", **changes)  # type: ignore[arg-type]


def test_every_completion_that_is_compared_has_one_vector(
    ranked_project: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = ranked_project(prompts=10, held_out=2)
    with project.store() as store:
        alone = Completion(store.value("SELECT min(id) FROM prompt"), "nobody is asked about this one")
        store.add_completions([alone])
    run = features.run(project, config(project, size=8))
    assert run.artefact["size"] == 8 and run.metrics == {"completions": 40, "size": 8}
    with project.store() as store:
        assert stored.latest(store) == run.id
        ids, matrix = stored.read(store, run.id)
    assert (len(ids), matrix.shape) == (40, (40, 8)) and alone.id not in ids
    assert float((matrix**2).sum(1).mean()) == pytest.approx(1, abs=1e-3)

    monkeypatch.setattr(features, "CHUNK", 3)  # other batches and another order: the same vectors
    again = features.run(project, config(project, size=8))
    with project.store() as store:
        assert stored.latest(store) == again.id
        assert stored.read(store, again.id)[0] == ids
        assert np.allclose(
            np.abs(stored.read(store, again.id)[1]), np.abs(matrix), atol=1e-4
        )  # up to an axis' sign


def test_what_is_missing_is_added_by_the_same_projection(ranked_project: Make) -> None:
    project = ranked_project(prompts=6, held_out=1)
    assert features.add_missing(project, "cpu", "float32") == 24  # there is no run yet: of all
    assert features.add_missing(project, "cpu", "float32") == 0
    with project.store() as store:
        prompt = store.value("SELECT min(id) FROM prompt")
        run = stored.latest(store)
        old = store.value("SELECT id FROM completion WHERE prompt_id = ? LIMIT 1", [prompt])
        new = Completion(prompt, "under the mat, as ever")
        store.add_completions([new])
        store.add_comparisons([Comparison(prompt, tuple(sorted((old, new.id))))])
    assert features.add_missing(project, "cpu", "float32") == 1
    assert [r.id for r in project.runs()] == ["features-1"]
    with project.store() as store:
        assert stored.latest(store) == run
        ids, matrix = stored.read(store, str(run), [new.id])
    assert ids == [new.id] and np.isfinite(matrix).all() and np.abs(matrix).max() > 0


def test_projection_keeps_distances_and_weighs_both_halves_alike() -> None:
    rng = np.random.default_rng(0)
    states = np.concatenate([rng.normal(size=(50, 3)), 100 * rng.normal(size=(50, 3))], axis=1).astype(
        np.float32
    )
    whole = Projection.fit(states, 99)
    found = whole.apply(states)
    assert found.shape == (50, 6)
    scaled = states - states.mean(0)
    scaled = scaled / np.repeat(
        [np.sqrt((scaled[:, :3] ** 2).mean()), np.sqrt((scaled[:, 3:] ** 2).mean())], 3
    )
    ours, theirs = (((x[:, None] - x[None]) ** 2).sum(-1) for x in (found, scaled))
    assert np.allclose(ours * theirs.mean() / ours.mean(), theirs, rtol=1e-3, atol=1e-3)
    assert Projection.fit(states, 2).apply(states).shape == (50, 2)
    assert Projection.fit(states[:1], 4).apply(states[:1]).shape == (
        1,
        1,
    )  # one completion: nothing to tell apart


def test_bad_input(ranked_project: Make) -> None:
    project = ranked_project(prompts=2, held_out=0)
    with pytest.raises(UserError, match="--size must be at least 1, got 0"):
        features.run(project, config(project, size=0))
    with pytest.raises(UserError, match="no completion is part of a comparison yet"):
        features.run(project, config(project, source="elsewhere"))
