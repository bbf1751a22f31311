"""Several processes that train one model, as `accelerate launch` or `torchrun` start them.

    accelerate launch --num_processes 2 -m palate reward      # or sft
    torchrun --nproc-per-node 2 -m palate reward

The first process does everything that is not training: it alone opens the database, writes the run and prints. The others
wait for what to train (`hear`), train their share of every step's rows, and add their gradients up with everybody's
(`add_up`), so that all weights stay the same: the same loss as one process with the same batch.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import nn

from palate.launched import processes

PATIENCE = timedelta(days=7)  # that the others wait while the first one samples, scores or writes
Item = TypeVar("Item")


@dataclass(frozen=True)
class Team:
    """Process `rank` of `size`; alone, everything here does nothing."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that keeps the books."""
        return self.rank == 0

    def tell(self, message: Any) -> None:
        """From the first process to the others, who are in `hear`; None: it is over."""
        if self.size > 1:
            dist.broadcast_object_list([message], src=0)

    def hear(self) -> Any:
        """What the first process tells."""
        box: list[Any] = [None]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def same(self, value: Item) -> Item:
        """The first process's value, in all of them."""
        if self.size == 1:
            return value
        box: list[Any] = [value if self.first else None]
        dist.broadcast_object_list(box, src=0)
        found: Item = box[0]
        return found

    def wait(self) -> None:
        """Until every process has come here."""
        if self.size > 1:
            dist.barrier()

    def leave(self) -> None:
        """All are done with each other: the first goes on alone, the others end here."""
        if self.size == 1:
            return
        dist.barrier()
        if not self.first:
            self.end()
        dist.destroy_process_group()

    def end(self) -> None:
        """This process, not the first one, has done its part and has nothing to put away.

        At once: an orderly end was aborted in two of some twenty runs with FSDP, and now and then without it, by C++
        ("terminate called without an active exception"), and a launcher takes that for a failure of all.
        """
        os._exit(0)

    def share(self, rows: Sequence[Item]) -> Sequence[Item]:
        """The rows of this process."""
        return rows[self.rank :: self.size] if self.size > 1 else rows

    def gather(self, value: Item) -> list[Item]:
        """Every process's value, in all of them, by rank."""
        if self.size == 1:
            return [value]
        every: list[Any] = [None] * self.size
        dist.all_gather_object(every, value)
        return every

    def add_up(self, parameters: Iterable[nn.Parameter]) -> None:
        """Gradients summed over all processes, in place."""
        if self.size == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)

    def sums(self, figures: dict[str, float]) -> dict[str, float]:
        """Figures summed over all processes, by name."""
        if self.size == 1:
            return figures
        every = self.gather(figures)
        names = sorted({name for one in every for name in one})
        return {name: sum(one.get(name, 0.0) for one in every) for name in names}


@cache
def team() -> Team:
    """This process's place, from the variables that a launcher sets; joins the group at the first call."""
    if processes() <= 1:
        return Team()
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
    return Team(dist.get_rank(), dist.get_world_size())
