"""Frozen features of completions: what a linear head, and the labeling server, learn from between two votes.

    palate reward features          or   run(Project.open(folder), RewardFeaturesConfig(folder))

A completion's features are the decoder's output at its last token beside the mean over its tokens, each scaled to unit
mean square over the completions at hand, then projected on their principal components. `palate sample` adds those of
new completions by the same projection, so that all vectors of one run compare. Not here: the database
(data/features.py), the head (palate.linear_head).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tqdm import tqdm

from palate.config import Device, Dtype, RewardFeaturesConfig, UserError, as_dict
from palate.data import features as stored
from palate.data.any_store import AnyStore
from palate.data.records import Run
from palate.hardware import probe
from palate.models import Loaded, load
from palate.project import Project
from palate.sequences import EncodedTree
from palate.training import encode, starting_point, token_budget
from palate.tree import TreeForward
from palate.tree_packing import micro_batches

CHUNK = 256  # prompts between two writes: what Ctrl-C may lose
FITTED_ON = 4_000  # completions, at most, that the projection is made from
FILE = "projection.safetensors"
Matrix = NDArray[np.float32]

# completions that somebody may be asked to rank, or has ranked, by prompt
_COMPLETIONS = """
SELECT p.messages, list(m.id ORDER BY m.id) AS ids, list(m.text ORDER BY m.id) AS completions,
       list(m.finish_reason ORDER BY m.id) AS finish_reasons
FROM completion m JOIN prompt p ON p.id = m.prompt_id
WHERE m.id IN (SELECT unnest(completion_ids) FROM comparison)
  AND m.id NOT IN (SELECT completion_id FROM feature WHERE run_id = ?)
  AND (? IS NULL OR p.source = ?)
GROUP BY p.id, p.messages ORDER BY md5(p.id)
"""


@dataclass(frozen=True)
class Projection:
    """From raw states (H,) to features (D,): learned once from the completions at hand."""

    mean: Matrix  # (H,)
    ways: Matrix  # (H, D)

    @classmethod
    def fit(cls, states: NDArray[np.floating], size: int) -> "Projection":
        """Principal components of n raw states (n, H), at most `size`, n - 1 and H; features have unit mean square
        length. Each half of a state (last token, mean) counts the same."""
        x = np.asarray(states, dtype=np.float64)
        mean = x.mean(axis=0)
        centred = x - mean
        scale = np.concatenate(
            [np.full(half.shape[1], _root_mean_square(half)) for half in np.array_split(centred, 2, axis=1)]
        )
        kept = max(1, min(size, len(x) - 1, x.shape[1]))
        _, _, directions = np.linalg.svd(centred / scale, full_matrices=False)
        ways = (directions[:kept] / scale).T
        ways /= np.sqrt(((centred @ ways) ** 2).sum(axis=1).mean()) or 1.0
        return cls(mean.astype(np.float32), ways.astype(np.float32))

    def apply(self, states: NDArray[np.floating]) -> Matrix:
        """(n, D) features of raw states (n, H)."""
        return np.asarray((states - self.mean) @ self.ways, dtype=np.float32)

    def save(self, file: Path) -> None:
        save_file({"mean": self.mean, "ways": np.ascontiguousarray(self.ways)}, file)

    @classmethod
    def load(cls, file: Path) -> "Projection":
        """What `save` wrote."""
        try:
            read = load_file(file)
        except OSError as error:
            raise UserError(f"{file} can't be read ({error}): run palate reward features again") from error
        return cls(read["mean"], read["ways"])


@torch.no_grad()
def states(forward: TreeForward, trees: Sequence[EncodedTree], budget: int) -> list[Matrix]:
    """Per tree (K, H) raw states, in float32 whatever the batch."""
    found: list[Matrix] = [np.zeros((0, 0), dtype=np.float32)] * len(trees)
    for group in micro_batches(trees, budget):
        for index, rows in zip(group, forward.summaries([trees[i] for i in group]), strict=True):
            found[index] = rows.cpu().numpy()
    return found


def frozen(
    loaded: Loaded, rows: Sequence[dict[str, Any]], trees: Sequence[EncodedTree], size: int
) -> dict[str, Matrix]:
    """Features by completion id of rankings (rows of data.preferences) on a base that has no adapter yet."""
    budget = token_budget(loaded.model.config, loaded.hardware)
    found = states(TreeForward.of(loaded.model, loaded.hardware), trees, budget)
    by_id = {
        one: state
        for row, tree in zip(rows, found, strict=True)
        for one, state in zip(row["completion_ids"], tree, strict=True)
    }
    matrix = np.stack(list(by_id.values()))
    return dict(zip(by_id, Projection.fit(matrix, size).apply(matrix), strict=True))


def run(project: Project, config: RewardFeaturesConfig) -> Run:
    """Compute and store the features of every completion that is, or may be, ranked; returns the run."""
    if config.size < 1:
        raise UserError(f"--size must be at least 1, got {config.size}")
    hardware = probe(config.device, config.dtype)
    ref, parents = starting_point(project, config.base)
    with project.store() as store:
        rows = _limited(_missing(store, "", config.source), config.limit)
    if not rows:
        raise UserError(
            "no completion is part of a comparison yet: make some with palate sample, or import rankings"
        )
    with project.start("features", as_dict(config), parents) as active:
        loaded = load(project, ref, hardware, scores=True)
        active.update(template_hash=loaded.encoder.template_hash)
        wanted = sum(len(row["ids"]) for row in rows)
        print(f"{active.id}: features of {wanted} completions from {ref} ({hardware})")
        made = _made(loaded, rows, config.max_length)
        first = next(made)  # the projection is made from whole prompts, the first by hash
        while len(first[1]) < min(wanted, FITTED_ON):
            ids, more = next(made)
            first = (first[0] + ids, np.concatenate([first[1], more]))
        projection = Projection.fit(first[1], config.size)
        projection.save(active.path / FILE)
        artefact = {"kind": "features", "path": FILE, "base": ref, "size": projection.ways.shape[1],
                    "max_length": config.max_length}  # fmt: skip
        active.update(artefact=artefact)
        new = _store(project, active.id, *first, projection)
        for ids, matrix in made:
            new += _store(project, active.id, ids, matrix, projection)
        active.metrics(completions=new, size=artefact["size"])
    print(f"made {new} vectors of {artefact['size']} numbers")
    print("next: palate label, which chooses what to ask by them")
    return active.record


def add_missing(project: Project, device: Device, dtype: Dtype) -> int:
    """Features of completions that have none yet; returns how many vectors are new.

    By the newest features run where it was made from the model that rewards start from now, so that vectors compare;
    otherwise by a new run, of all completions.
    """
    ref, _ = starting_point(project, None)
    with project.store() as store:
        latest = stored.latest(store)
        runs = [run for run in project.runs() if run.id == latest and run.artefact.get("base") == ref]
        rows = _missing(store, runs[0].id, None) if runs else []
    if not runs:
        made = run(project, RewardFeaturesConfig(project.folder, device=device, dtype=dtype))
        return int(made.metrics["completions"])
    known = runs[0]
    projection = Projection.load(Path(known.path) / FILE)
    loaded = load(project, ref, probe(device, dtype), scores=True)
    found = _made(loaded, rows, int(known.artefact["max_length"]))
    new = sum(_store(project, known.id, ids, matrix, projection) for ids, matrix in found)
    print(f"made {new} vectors of features by {known.id}")
    return new


def _missing(store: AnyStore, run_id: str, source: str | None) -> list[dict[str, Any]]:
    return store.rows(_COMPLETIONS, [run_id, source, source])


def _limited(rows: list[dict[str, Any]], limit: int | None) -> list[dict[str, Any]]:
    """Whole prompts, until there are `limit` completions."""
    kept, count = [], 0
    for row in rows:
        if limit is not None and count >= limit:
            break
        kept.append(row)
        count += len(row["ids"])
    return kept


def _made(loaded: Loaded, rows: list[dict[str, Any]], max_length: int) -> Iterator[tuple[list[str], Matrix]]:
    """(ids, raw states) of a chunk of prompts at a time."""
    forward = TreeForward.of(loaded.model, loaded.hardware)
    budget = token_budget(loaded.model.config, loaded.hardware)
    with tqdm(
        total=sum(len(row["ids"]) for row in rows),
        desc="features",
        unit="completion",
        disable=None,
        leave=False,
    ) as bar:
        for first in range(0, len(rows), CHUNK):
            chunk = rows[first : first + CHUNK]
            found = states(forward, encode(chunk, loaded.encoder, max_length), budget)
            bar.update(sum(map(len, found)))
            yield [one for row in chunk for one in row["ids"]], np.concatenate(found)


def _store(project: Project, run_id: str, ids: list[str], matrix: Matrix, projection: Projection) -> int:
    """One transaction; the file is closed again at once."""
    with project.store() as store:
        return stored.add(store, run_id, ids, projection.apply(matrix))


def _root_mean_square(x: NDArray[np.floating]) -> float:
    return float(np.sqrt((x**2).mean())) or 1.0
