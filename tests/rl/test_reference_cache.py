"""The reference's log-probabilities are kept: new votes cost their own rows, and the numbers are the very same."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from palate.config import DpoConfig
from palate.hardware import probe
from palate.models import load
from palate.project import Project
from palate.rl import dpo
from palate.rl.reference_cache import KEPT, ReferenceCache, keys
from palate.sequences import EncodedTree
from palate.tree import TreeForward

Make = Callable[..., Project]
CPU = probe("cpu", "float32")
TREES = [EncodedTree([5, 6], [[7, 8], [9]], 0, 0), EncodedTree([5, 6, 7], [[8]], 0, 0)]


def test_keys_tell_prompts_and_completions_apart() -> None:
    found = [key for tree in TREES for key in keys(tree)]
    assert len(set(found)) == 3 and {len(key) for key in found} == {16}  # [5 6 | 7 8] is not [5 6 7 | 8]
    assert keys(TREES[0]) == keys(EncodedTree([5, 6], [[7, 8], [9]], 3, 1))


def test_what_is_kept_is_what_would_be_computed(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    loaded = load(None, str(tiny_models["llama"]), CPU)
    forward = TreeForward.of(loaded.model, CPU)
    cache = ReferenceCache.of(tmp_path, loaded, forward)
    assert cache is not None and cache.known(TREES) == [None, None]
    with torch.no_grad():
        logprobs = forward.logprobs(TREES)
    cache.add(TREES[:1], logprobs[:1])
    again = ReferenceCache.of(tmp_path, loaded, forward)
    assert again is not None
    known = again.known(TREES)
    assert known[0] is not None and torch.equal(known[0], logprobs[0]) and known[1] is None
    with torch.no_grad():
        next(loaded.model.parameters()).add_(0.01)  # another reference
    other = ReferenceCache.of(tmp_path, loaded, forward)
    assert other is not None and other.path != again.path and other.known(TREES) == [None, None]
    other.path.write_bytes(b"cut off by a full disk")
    broken = ReferenceCache.of(tmp_path, loaded, forward)
    assert broken is not None and broken.found == {}
    rounding = replace(loaded, hardware=replace(CPU, device=torch.device("meta"), dtype=torch.bfloat16))
    assert ReferenceCache.of(tmp_path, rounding, forward) is None


def test_only_the_latest_references_stay(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    loaded = load(None, str(tiny_models["llama"]), CPU)
    cache = ReferenceCache.of(tmp_path, loaded, TreeForward.of(loaded.model, CPU))
    assert cache is not None
    for number in range(KEPT + 3):
        replace(cache, path=cache.path.with_name(f"{number}.parquet")).add(TREES[:1], [torch.zeros(2)])
    assert len(list(cache.path.parent.glob("*.parquet"))) == KEPT


def test_a_second_run_computes_new_rows_alone_and_learns_the_same(
    ranked_project: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = ranked_project()
    config = DpoConfig(
        project.folder, epochs=2, learning_rate=3e-2, batch_size=6, device="cpu", dtype="float32"
    )
    computed: list[int] = []
    plain = dpo.prepare

    def counted(forward, rows, *more):  # type: ignore[no-untyped-def]
        cache = more[-1]
        computed.append(sum(one is None for one in cache.known(more[0])))
        return plain(forward, rows, *more)

    monkeypatch.setattr(dpo, "prepare", counted)
    first = dpo.run(project, replace(config, limit=15))
    second = dpo.run(project, config)
    third = dpo.run(project, config)
    assert sum(computed[:2]) == 15 and sum(computed[2:4]) == 24 - 15 and sum(computed[4:]) == 0
    logs = [(Path(run.path) / "metrics.jsonl").read_text() for run in (second, third)]
    assert logs[0] == logs[1] and first.status == "done"
    steps = [json.loads(line) for line in logs[0].splitlines()]
    assert steps[0]["loss"] == pytest.approx(0.693147, abs=1e-6) and steps[0]["distance"] == 0.0


def test_rows_that_a_part_of_an_epoch_never_reaches_are_not_kept(ranked_project: Make) -> None:
    """They once were, as NaN, and every later run on these votes failed."""
    project = ranked_project()
    config = DpoConfig(
        project.folder, epochs=0.3, learning_rate=3e-2, batch_size=6, device="cpu", dtype="float32"
    )
    dpo.run(project, config)
    loaded = load(project, project.base, CPU)
    cache = ReferenceCache.of(project.folder, loaded, TreeForward.of(loaded.model, CPU))
    assert cache is not None and len(cache.found) == 4 * (
        6 + 6
    )  # one step of training rows, all held-out ones
    whole = dpo.run(project, replace(config, epochs=1))
    steps = [json.loads(line) for line in (Path(whole.path) / "metrics.jsonl").read_text().splitlines()]
    assert len(steps) == 3 and steps[0]["loss"] == pytest.approx(0.693147, abs=1e-6)


def test_what_is_no_number_counts_as_unknown(tiny_models: dict[str, Path], tmp_path: Path) -> None:
    loaded = load(None, str(tiny_models["llama"]), CPU)
    forward = TreeForward.of(loaded.model, CPU)
    cache = ReferenceCache.of(tmp_path, loaded, forward)
    assert cache is not None
    cache.add(TREES, [torch.tensor([-1.0, torch.nan]), torch.tensor([-2.0])])
    again = ReferenceCache.of(tmp_path, loaded, forward)
    assert again is not None
    known = again.known(TREES)
    assert known[0] is None and known[1] is not None and known[1].tolist() == [-2.0]
    assert [file.name for file in cache.path.parent.iterdir()] == [cache.path.name]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_on_a_cpu_what_is_computed_beside_a_row_does_not_matter(
    tiny_models: dict[str, Path], name: str, dtype: str
) -> None:
    hardware = probe("cpu", dtype)
    forward = TreeForward.of(load(None, str(tiny_models[name]), hardware).model, hardware)
    draw = torch.Generator().manual_seed(0)
    trees = [
        EncodedTree(
            torch.randint(10, 400, (4 + i,), generator=draw).tolist(),
            [torch.randint(10, 400, (3 + i + k,), generator=draw).tolist() for k in range(3)], 0, 0,
        )
        for i in range(6)
    ]  # fmt: skip
    with torch.no_grad():
        alone = [forward.logprobs([tree])[0] for tree in trees]
        for size in (2, 3, 6):
            together = [row for at in range(0, 6, size) for row in forward.logprobs(trees[at : at + size])]
            assert all(torch.equal(a, b) for a, b in zip(alone, together, strict=True))
