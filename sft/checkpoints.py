"""Checkpoints of `palate sft`: those of transformers' Trainer (palate.trainers), and what was measured before.

runs/sft-1/checkpoints/before.json    what was measured before the first step
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from palate.data.records import Message
from palate.generation import Sampled

_BEFORE = "before.json"


@dataclass(frozen=True)
class Before:
    """What the base did before the first step: a resumed run has other weights and can't measure it again."""

    prompts: Sequence[Sequence[Message]]
    samples: Sequence[Sampled]
    validation_loss: float | None

    def save(self, folder: Path) -> None:
        """Whole or not at all."""
        folder.mkdir(exist_ok=True)
        partial = folder / f"{_BEFORE}.partial"
        partial.write_text(json.dumps(asdict(self)), encoding="utf-8")
        partial.replace(folder / _BEFORE)


def before(folder: Path) -> Before | None:
    """What `Before.save` wrote; None when the run had not come so far."""
    try:
        content = json.loads((folder / _BEFORE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return Before(
        content["prompts"], [Sampled(**one) for one in content["samples"]], content["validation_loss"]
    )
