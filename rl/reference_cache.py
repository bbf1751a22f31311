"""What a reference thinks of completions, kept between runs: new votes then cost only their own rows.

    cache = ReferenceCache.of(project.folder, loaded, forward)     # None where its numbers would not be the very same
    cache.known(trees)             # per tree (K,) log-probabilities, or None
    cache.add(trees, logprobs)     # to the disk, whole or not at all

One file per reference (its weights' hash) and arithmetic; a completion goes by its tokens and its prompt's. On a CPU a row's numbers
do not depend on what is computed beside it, so what is kept equals what would be computed; other devices round by batch, and
keep nothing in bfloat16: before the first step the policy must equal its reference.
"""

import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from palate.doctor import weights_hash
from palate.models import Loaded
from palate.sequences import EncodedTree
from palate.tree import TreeForward

KEPT = 8  # references, the latest
FOLDER = "cache/reference"


@dataclass
class ReferenceCache:
    """The file of one reference, read."""

    path: Path
    found: dict[bytes, float]

    @classmethod
    def of(cls, project: Path, loaded: Loaded, forward: TreeForward) -> "ReferenceCache | None":
        """Of the model as it is now. A file that can't be read counts as none."""
        hardware = loaded.hardware
        if hardware.device.type != "cpu" and hardware.dtype != torch.float32:
            return None
        arithmetic = f"{hardware.device.type}/{hardware.dtype}/{forward.layout}/{forward.plain_head}/{torch.__version__}"
        weights = weights_hash(loaded.model.named_parameters())
        key = hashlib.sha256(f"{weights}/{arithmetic}".encode()).hexdigest()[:24]
        path = project / FOLDER / f"{key}.parquet"
        try:
            table = pq.read_table(path)
            kept = zip(table["key"].to_pylist(), table["logprob"].to_pylist(), strict=True)
            found = {key: value for key, value in kept if math.isfinite(value)}
        except (OSError, pa.ArrowInvalid, KeyError):
            found = {}
        return cls(path, found)

    def known(self, trees: Sequence[EncodedTree]) -> list[Tensor | None]:
        """Per tree (K,) float32, where all of its completions are known."""
        values = [[self.found.get(key) for key in keys(tree)] for tree in trees]
        return [
            None if any(one is None for one in row) else torch.tensor(row, dtype=torch.float32)
            for row in values
        ]

    def add(self, trees: Sequence[EncodedTree], logprobs: Sequence[Tensor]) -> None:
        """Keep these too."""
        for tree, row in zip(trees, logprobs, strict=True):
            self.found.update(zip(keys(tree), row.tolist(), strict=True))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        table = pa.table(
            {
                "key": pa.array(list(self.found), pa.binary(16)),
                "logprob": pa.array(list(self.found.values()), pa.float32()),
            }
        )
        partial = self.path.with_suffix(f".{os.getpid()}.partial")  # two runs at once write one each
        pq.write_table(table, partial)
        partial.replace(self.path)
        files = sorted(self.path.parent.glob("*.parquet"), key=lambda file: file.stat().st_mtime)
        for old in files[:-KEPT]:
            old.unlink(missing_ok=True)


def keys(tree: EncodedTree) -> list[bytes]:
    """Sixteen bytes per completion, of its tokens after the prompt's."""
    prompt = hashlib.sha256(np.asarray(tree.prompt, np.int32).tobytes() + b"|")
    found = []
    for completion in tree.completions:
        digest = prompt.copy()
        digest.update(np.asarray(completion, np.int32).tobytes())
        found.append(digest.digest()[:16])
    return found
