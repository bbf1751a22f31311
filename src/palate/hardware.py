"""What this machine can do: the device, the arithmetic, the number of threads.

It decides nothing about models or batch sizes. `auto` never picks an arithmetic that the processor imitates
slowly: bfloat16 on a CPU without avx512_bf16 or amx trains more than ten times slower than float32.

    hardware = probe("auto", "auto")
    with hardware.autocast(): ...
"""

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from palate.config import Device, Dtype, UserError


@dataclass(frozen=True)
class Hardware:
    """Where a forward pass runs and in which arithmetic; weights stay in float32."""

    device: torch.device
    dtype: torch.dtype  # of autocast; float32 means no autocast
    threads: int

    def autocast(self) -> AbstractContextManager[object]:
        """A context in which matrix products run in `dtype`."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def __str__(self) -> str:
        return f"{self.device.type}, {str(self.dtype).removeprefix('torch.')}, {self.threads} threads"


def probe(device: Device = "auto", dtype: Dtype = "auto") -> Hardware:
    """Choose the device and the arithmetic, and give torch the cores this process may use."""
    chosen = _device(device)
    arithmetic = {"float32": torch.float32, "bfloat16": torch.bfloat16}.get(dtype) or _fastest_dtype(chosen)
    threads = min(torch.get_num_threads(), _free_cores())  # torch's own default knows OMP_NUM_THREADS
    torch.set_num_threads(threads)
    return Hardware(chosen, arithmetic, threads)


def _device(device: Device) -> torch.device:
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        return torch.device(next(name for name, there in available.items() if there))
    if not available[device]:
        raise UserError(f"--device {device}: torch sees no such device here; use --device auto or cpu")
    return torch.device(device)


def _fastest_dtype(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    else:
        fast = False  # autocast on mps saves no time on small models and is the youngest of the three
    return torch.bfloat16 if fast else torch.float32


def _free_cores() -> int:
    """Cores this process may use: its affinity, and the container's quota where there is one."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = Path("/sys/fs/cgroup/cpu.max")  # cgroup v2: "QUOTA PERIOD" or "max PERIOD"
    if quota.exists():
        limit, _, period = quota.read_text().partition(" ")
        if limit != "max":
            cores = min(cores, max(1, int(limit) // int(period)))
    return max(1, cores)
