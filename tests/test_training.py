"""The training loop: the best epoch is kept, also across a kill; steps cover every row once an epoch."""

from itertools import chain
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from palate.checkpoints import Checkpoints
from palate.project import Project
from palate.runs import ActiveRun
from palate.sequences import EncodedTree
from palate.training import Judge, Stats, batches, fit

ROWS = 6
TREES = [EncodedTree([1], [[2]], 0, 0)] * ROWS
TARGET = 3.0


class Line(nn.Module):
    """One weight that is drawn towards TARGET."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))


def trained(
    model: Line, judge: Judge | None = None, active: ActiveRun | None = None, steps: int = 12
) -> list[Stats]:
    def loss(rows: list[int]) -> tuple[Tensor, Stats]:
        return len(rows) * (model.weight - TARGET).square().sum(), {}

    log = active.log if active else lambda *_, **__: None
    checkpoints = Checkpoints(active) if active else None
    order = batches(ROWS, 2, 4, seed=0)[:steps]
    return fit("test", model, TREES, [1.0] * ROWS, order, loss, 0.1, 1000, log, checkpoints, judge)


def test_batches_cover_every_row_once_an_epoch() -> None:
    steps = batches(7, 3, 2, seed=1)
    assert [len(step) for step in steps] == [3, 3, 1, 3, 3, 1]
    assert sorted(chain(*steps[:3])) == sorted(chain(*steps[3:])) == list(range(7))
    assert steps == batches(7, 3, 2, seed=1) != batches(7, 3, 2, seed=2)
    assert len(batches(7, 3, 0.1, seed=1)) == 1


def test_the_best_epoch_is_kept_and_a_worse_one_ends_it() -> None:
    model, seen, said = Line(), list[float](), iter([1.0, 3.0, 2.0, 9.0])

    def score() -> float:
        seen.append(model.weight.item())
        return next(said)

    history = trained(model, Judge(3, score))
    assert len(history) == 9 and len(seen) == 3  # the fourth epoch never came
    assert model.weight.item() == seen[1] and 0 < seen[0] < seen[1] < seen[2]
    assert [stats.get("held_back") for stats in history[2::3]] == [1.0, 3.0, 2.0]


def test_the_best_epoch_outlives_a_kill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("palate.checkpoints.EVERY", 0.0)
    whole = Line()
    expected = trained(whole, Judge(3, lambda: -abs(whole.weight.item() - 0.5)))

    project = Project.create(tmp_path / "project")
    with project.start("reward", {}) as active:
        first = Line()

        def dies() -> float:
            if first.weight.item() > 0.55:
                raise RuntimeError("as if killed")
            return -abs(first.weight.item() - 0.5)

        with pytest.raises(RuntimeError, match="as if killed"):
            trained(first, Judge(3, dies), active)
        again = Line()
        history = trained(again, Judge(3, lambda: -abs(again.weight.item() - 0.5)), active)
        assert history == expected and again.weight.item() == whole.weight.item()
        assert trained(Line(), None, active) == expected  # over is over: nothing is trained once more
