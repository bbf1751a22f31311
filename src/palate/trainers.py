"""transformers' Trainer as TRL's trainers are driven here: settings that all of them get, checkpoints whole or not at all.

    arguments = TrlConfig(..., **machine(hardware))
    train(trainer, folder, latest(folder))    # from the last checkpoint, where there is one

    runs/sft-1/checkpoints/step-120/      weights, optimiser, learning rate and place after 120 steps
    runs/sft-1/checkpoints/writing/       where the Trainer writes one; means nothing

The Trainer writes a dozen files in turn. They become `step-120` by one rename when all of them are on the disk, so a kill
at any moment leaves the last checkpoint or the new one. The folder goes when the run is done. Orders, initial weights and
samples follow from the seed and nothing is dropped at random, so the resumed run is the uninterrupted one.
"""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from palate import checkpoints
from palate.hardware import Hardware
from palate.parallel import team

_WRITING = "writing"


def machine(hardware: Hardware) -> dict[str, Any]:
    """What this machine can do; and nothing is written, printed or sent but by us."""
    return {
        "bf16": hardware.dtype == torch.bfloat16,
        "use_cpu": hardware.device.type == "cpu",
        "dataloader_pin_memory": hardware.device.type == "cuda",
        "logging_nan_inf_filter": False,
        "save_strategy": "no",  # `callback` asks for checkpoints
        "report_to": "none",
        "disable_tqdm": True,
    }


def train(
    trainer: Any, folder: Path | None, checkpoint: Path | None, beside: Callable[[Path], None] | None = None
) -> None:
    """Train to the end, from `checkpoint` on, keeping checkpoints in `folder`; None: none."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)
    if folder is not None:
        trainer.add_callback(callback(folder, beside))
    trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))


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


def callback(folder: Path, beside: Callable[[Path], None] | None = None) -> Any:
    """Asks the Trainer for a checkpoint every `checkpoints.EVERY` seconds, and keeps the last one in `folder`; `beside` adds
    what else belongs to it.

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
                written = folder / _WRITING / f"checkpoint-{state.global_step}"
                if beside is not None:
                    beside(written)
                _keep(written, folder / f"step-{state.global_step}")
            team().wait()
            self.last = time.monotonic()

    return Keep()


def _keep(written: Path, place: Path) -> None:
    """What the Trainer has written becomes the checkpoint; older ones go."""
    for path in written.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    older = list(place.parent.glob("step-*"))
    written.rename(place)
    for path in older:
        shutil.rmtree(path, ignore_errors=True)
