"""Checkpoints of transformers' Trainer, each whole or not there at all.

    runs/sft-1/checkpoints/step-120/      weights, optimiser, learning rate and place after 120 steps
    runs/sft-1/checkpoints/writing/       where the Trainer writes one; means nothing

The Trainer writes a dozen files in turn. They become `step-120` by one rename when all of them are on the disk, so a kill
at any moment leaves the last checkpoint or the new one. The folder goes when the run is done. Orders, initial weights and
samples follow from the seed and nothing is dropped at random, so the resumed run is the uninterrupted one.
"""

import os
import shutil
import time
from pathlib import Path
from typing import Any

from palate import checkpoints
from palate.parallel import team

_WRITING = "writing"


def latest(folder: Path) -> Path | None:
    """The last whole checkpoint."""
    return max(folder.glob("step-*"), key=step_of, default=None)


def step_of(checkpoint: Path) -> int:
    """How many steps it had made."""
    return int(checkpoint.name.removeprefix("step-"))


def writing(folder: Path) -> Path:
    """A place for the Trainer to write in, empty."""
    place = folder / _WRITING
    if team().first:
        shutil.rmtree(place, ignore_errors=True)
    return place


def callback(folder: Path) -> Any:
    """Asks the Trainer for a checkpoint every `checkpoints.EVERY` seconds, and keeps the last one in `folder`.

    It comes with a line of the log, never between two, so the figures of the resumed run are averages over the same steps.
    The last step needs none.
    """
    from transformers import TrainerCallback

    class Keep(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.last = time.monotonic()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if control.should_log and state.global_step < state.max_steps:
                control.should_save = team().same(time.monotonic() - self.last >= checkpoints.EVERY)

        def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            team().wait()  # every process writes its own random numbers
            if team().first:
                _keep(folder, state.global_step)
            team().wait()
            self.last = time.monotonic()

    return Keep()


def _keep(folder: Path, step: int) -> None:
    """What the Trainer has written becomes the checkpoint; older ones go."""
    written = folder / _WRITING / f"checkpoint-{step}"
    for path in written.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    older = list(folder.glob("step-*"))
    written.rename(folder / f"step-{step}")
    for path in older:
        shutil.rmtree(path, ignore_errors=True)
