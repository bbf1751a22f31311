"""Checkpoints of training: what it takes to go on after a kill as if nothing had happened.

    checkpoints = Checkpoints(active)               # of a run that is under way
    state = checkpoints.load()                      # None: from the start
    checkpoints.save(State(...))                    # whole or not at all

One file beside the run's record, replaced by a rename: a kill at any moment leaves the old state or the new one. The
lines of metrics.jsonl that were logged after it are cut when training goes on, so no step is there twice. Nothing here
is random: orders and initial weights follow from the seed, so weights, optimiser and the place are all there is.
"""

import os
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from palate.config import UserError
from palate.runs import CHECKPOINT, ActiveRun

EVERY = 30.0  # seconds of training that a kill may lose


@dataclass
class Best:
    """The epoch that did best on what it had not seen."""

    score: float  # higher is better
    step: int  # optimiser steps until then
    weights: dict[str, Tensor]


@dataclass
class State:
    """After `step` optimiser steps."""

    step: int
    weights: dict[str, Tensor]  # those that train, by name
    optimizer: dict[str, Any]
    history: list[dict[str, float]] = field(default_factory=list)
    best: Best | None = None
    ended: bool = False  # training is over, early or not
    extra: dict[str, Any] = field(
        default_factory=dict
    )  # numbers, lists and tensors that a method needs besides


class Checkpoints:
    """The checkpoint of one run. It goes when the run is done."""

    def __init__(self, active: ActiveRun) -> None:
        self._active = active
        self._path = active.path / CHECKPOINT
        self._last = time.monotonic()

    def load(self) -> State | None:
        """The last state, with the run's log cut to it; None when there is none."""
        try:
            read = torch.load(self._path, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            self._active.rewind(0)
            return None
        except Exception as error:  # torch names no common class for a file that it can't read
            raise UserError(
                f"{self._path} can't be read ({error}); remove it to begin the run again"
            ) from error
        best = read.pop("best")
        state = State(**read, best=None if best is None else Best(**best))
        self._active.rewind(state.step)
        return state

    def due(self) -> bool:
        """Whether it is time to save again."""
        return time.monotonic() - self._last >= EVERY

    def save(self, state: State) -> None:
        """Write beside the place, to the disk, and rename."""
        partial = self._path.with_suffix(".partial")
        with partial.open("wb") as file:
            torch.save({**vars(state), "best": None if state.best is None else vars(state.best)}, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._path)
        self._last = time.monotonic()
