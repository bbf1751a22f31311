"""Peak memory of DPO and PPO on this machine beside what memory_arithmetic.py predicts, with and without glibc's holes.

    python benchmarks/memory_measured.py [--quick]      five to twelve minutes; Linux

A random Llama of 110M weights with LoRA, float32, on a CPU; each measurement in a process of its own, loading not counted.
Figures are told, not judged: docs/scale.md.
"""

import copy
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from common import ROOT, arguments, peak_bytes
from memory_arithmetic import CHUNK, HELD, RANK, TRAINED, counts, trees_bytes
from transformers import LlamaConfig, LlamaForCausalLM

# glibc keeps freed blocks in a heap with holes; with the second, blocks from 64 KB on go back at once
HEAPS: dict[str, dict[str, str]] = {"as it is": {}, "given back": {"MALLOC_MMAP_THRESHOLD_": "65536"}}


def large(quick: bool) -> Any:
    """A random model of 110M weights with the built-in tokenizer, in memory."""
    from ppo_speed import BIG

    from palate.hardware import probe
    from palate.models import load

    loaded = load(None, "builtin", probe("cpu", "float32"))
    small = {"hidden_size": 96, "intermediate_size": 128, "num_hidden_layers": 2} if quick else {}
    torch.manual_seed(0)
    loaded.model = LlamaForCausalLM(LlamaConfig(**{**BIG, **small}, eos_token_id=2)).eval()
    return loaded


def side(name: str, folder: Path, quick: bool) -> None:
    """One measurement in a process of its own: what is held and kept by arithmetic, and the peak above the bare process."""
    from palate.rl import dpo, ppo  # noqa: F401  what it imports belongs to the bare process
    from palate.tree_packing import tree_tokens

    small = large(True)  # so do the kernels that a first model builds
    run = {"dpo": run_dpo, "ppo": run_ppo}[name]
    del small
    bare = psutil.Process().memory_info().rss
    loaded = large(quick)
    found, config = counts(copy.deepcopy(loaded.model.config), RANK), loaded.model.config
    began = time.perf_counter()
    kept, rollout = run(loaded, folder)
    seconds = time.perf_counter() - began
    trained = {"dpo": 1, "ppo": 2}[name]
    always = HELD * found.all + trained * TRAINED * found.adapter + (trained - 1) * HELD * found.adapter
    update = trees_bytes(config, kept) + 3 * 4 * CHUNK["cpu"]
    print(json.dumps({
        "weights": found.all, "tokens": sum(map(tree_tokens, kept)), "held_mb": always / 1e6, "update_mb": update / 1e6,
        "rollout_mb": rollout / 1e6, "predicted_mb": (always + max(update, rollout)) / 1e6,
        "seconds": seconds, "measured_mb": (peak_bytes() - bare) / 1e6,
    }))  # fmt: skip


def run_dpo(loaded: Any, folder: Path) -> tuple[list[Any], float]:
    """Two steps of DPO; returns the trees of the largest micro-batch, and what sampling takes: nothing."""
    from dataclasses import replace

    from palate.models import lora
    from palate.rl.dpo import optimise, prepare
    from palate.rl.objective import Objective
    from palate.sequences import EncodedTree
    from palate.training import token_budget
    from palate.tree import TreeForward
    from palate.tree_packing import micro_batches

    ids = torch.randint(3, 4000, (32, 5, 64), generator=torch.Generator().manual_seed(0)).tolist()
    trees = [EncodedTree(row[0][:32], row[1:], 0, 0) for row in ids]
    pairs = [
        {"winner": i, "loser": j, "tie": False, "weight": 1 / 6, "strength": None}
        for i in range(4) for j in range(i + 1, 4)
    ]  # fmt: skip
    budget, objective = token_budget(loaded.model.config, loaded.hardware), Objective(0.1)
    plain, steps = TreeForward.of(loaded.model, loaded.hardware), [range(16), range(16, 32)]
    reset_peak()
    known = prepare(plain, [{"pairs": pairs}] * 32, trees, steps, budget, objective)
    forward = replace(plain, model=lora(loaded.model, RANK, 2 * RANK, 0))
    optimise(forward, known, steps, 1e-4, objective, budget, lambda *_, **__: None)
    return [trees[i] for i in micro_batches(trees[:16], budget)[0]], 0.0


def run_ppo(loaded: Any, folder: Path) -> tuple[list[Any], float]:
    """One rollout of PPO and its updates; returns the trees of the largest micro-batch, and what sampling takes."""
    from palate.config import PpoConfig
    from palate.rl.guards import Guard
    from palate.rl.ppo import Ppo
    from palate.rl.rewards import OnBase, Part, Rewards
    from palate.rl.roles import POLICY, VALUE, Roles
    from palate.sequences import EncodedTree
    from palate.training import token_budget
    from palate.tree_packing import micro_batches

    config = PpoConfig(
        steps=1, batch_size=64, k=4, max_new_tokens=48, value_warmup=0, target_kl=None, guard="off"
    )
    prompts = [[{"role": "user", "content": f"Write one sentence about the number {i}."}] for i in range(16)]
    roles = Roles.adapters(loaded, RANK, 0, folder / "reward")
    rewards = Rewards((Part("reward", 1.0),), (OnBase(),))
    reset_peak()
    Ppo(roles, rewards, prompts, config, {POLICY: 1e-5, VALUE: 1e-5}, Guard("off", 5, None)).optimise(
        lambda *_, **__: None
    )
    shape = loaded.model.config
    read = [loaded.encoder.prompt(prompt) for prompt in prompts]
    trees = [EncodedTree(one, [[3] * config.max_new_tokens] * config.k, 0, 0) for one in read[:8]]
    rows = config.batch_size * (max(map(len, read)) + config.max_new_tokens)
    cache = 2 * 4 * shape.num_hidden_layers * shape.hidden_size * rows
    return [trees[i] for i in micro_batches(trees, token_budget(shape, loaded.hardware))[0]], cache


def reset_peak() -> None:
    """From here on the peak counts (Linux); loading is not what this is about."""
    Path("/proc/self/clear_refs").write_text("5")


def measure(quick: bool) -> None:
    """Both sides, each in a process of its own."""
    from palate.reward.model import RewardModel

    with tempfile.TemporaryDirectory() as place:
        RewardModel.new(large(quick), "lora", 512, 0, RANK).save(Path(place) / "reward")
        for name, heap in ((name, heap) for name in ("dpo", "ppo") for heap in HEAPS):
            command = [sys.executable, __file__, "--side", name, "--folder", place, *["--quick"] * quick]
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                check=False,
                cwd=ROOT,
                env={**os.environ, **HEAPS[heap]},
            )
            if done.returncode:
                raise SystemExit(done.stderr[-3000:])
            found = json.loads(done.stdout.strip().splitlines()[-1])
            found["measured_by_predicted"] = found["measured_mb"] / found["predicted_mb"]
            rounded = {key: round(value, 2) for key, value in found.items()}
            print(json.dumps({"bench": "memory_measured", "side": name, "heap": heap, **rounded}), flush=True)


def main() -> None:
    given = arguments(__doc__.splitlines()[0])
    if given.side:
        side(given.side, given.folder, given.quick)
    else:
        measure(given.quick)


if __name__ == "__main__":
    main()
