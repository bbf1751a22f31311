"""Frozen features of completions, as the database keeps them: one vector per completion and run.

    run = latest(store)                          # the newest run that made features; None: there are none
    ids, matrix = read(store, run, wanted)       # (n,) completion ids and (n, D) float32, in the same order

Vectors of different runs have different axes and never mix. Not here: how they are made (reward/features.py).
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from palate.data.any_store import AnyStore

AT_ONCE = 20_000  # rows per insertion


def latest(store: AnyStore) -> str | None:
    """The run whose features are newest, by its record; None when no completion has features."""
    found = store.value(
        "SELECT f.run_id FROM (SELECT DISTINCT run_id FROM feature) f LEFT JOIN run r ON r.id = f.run_id "
        "ORDER BY r.created_at DESC NULLS LAST, f.run_id DESC LIMIT 1"
    )
    return None if found is None else str(found)


def read(
    store: AnyStore, run_id: str, completion_ids: Sequence[str] | None = None
) -> tuple[list[str], NDArray[np.float32]]:
    """(ids, matrix (n, D)) of a run, ordered by id: of all completions that have features, or of these."""
    some = None if completion_ids is None else list(completion_ids)
    rows = store.table(
        "SELECT completion_id, vector FROM feature WHERE run_id = ? "
        "AND (? IS NULL OR completion_id IN (SELECT unnest(?::VARCHAR[]))) ORDER BY completion_id",
        [run_id, None if some is None else 1, some],
    )
    ids: list[str] = rows["completion_id"].to_pylist()
    if not ids:
        return [], np.zeros((0, 0), dtype=np.float32)
    flat = rows["vector"].combine_chunks()
    values = np.asarray(flat.flatten().to_numpy(zero_copy_only=False), dtype=np.float32)
    return ids, values.reshape(len(ids), -1)


def add(store: AnyStore, run_id: str, completion_ids: Sequence[str], matrix: NDArray[np.float32]) -> int:
    """Store a run's features, `matrix` (n, D) row by row; those that are known stay. Returns how many are new."""
    new = 0
    for first in range(0, len(completion_ids), AT_ONCE):
        some = list(completion_ids[first : first + AT_ONCE])
        vectors = np.ascontiguousarray(matrix[first : first + AT_ONCE], dtype=np.float32)
        offsets = pa.array(np.arange(len(some) + 1, dtype=np.int32) * vectors.shape[1])
        columns = {
            "completion_id": pa.array(some, pa.string()),
            "run_id": pa.array([run_id] * len(some), pa.string()),
            "vector": pa.ListArray.from_arrays(offsets, pa.array(vectors.ravel())),
        }
        new += store.add_table("feature", pa.table(columns))
    return new
