"""Which way to fine-tune: every method of `palate sft` on one task, at its own default rate, and what it forgets.

    python benchmarks/sft_methods.py            3 seeds, about 6 minutes on one core
    python benchmarks/sft_methods.py --rates    the loss by learning rate, on data that the figures above never see
    python benchmarks/sft_methods.py --quick    a smoke run for the tests

The task is the demo's: an image prompt for a short idea. The base is the built-in model, which has read image prompts in
documents, but never answered with one. Forgetting is how much the loss rises on other text of its pretraining's kinds:
plain English and conversations, drawn with another seed than it was trained on. Every method sees the same rows, in the
same order, for the same two epochs. qlora is not here: it takes a CUDA GPU.
"""

import argparse
import json
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

from palate.config import SftConfig

METHODS: dict[str, dict[str, Any]] = {
    "full": {"method": "full"},
    "lora, rank 16": {"method": "lora"},
    "dora, rank 16": {"method": "dora"},
    "lora, rank 64": {"method": "lora", "lora_rank": 64},
    "rslora, rank 64": {"method": "rslora", "lora_rank": 64},
    "freeze, last 2 layers": {"method": "freeze", "layers": 2},
    "freeze, last layer": {"method": "freeze", "layers": 1},
    "freeze, norms": {"method": "freeze", "layers": 0, "train": ("norms",)},
    "freeze, head": {"method": "freeze", "layers": 0, "train": ("head",)},
}
RATES = (1e-4, 3e-4, 1e-3, 2e-3, 5e-3, 1e-2, 3e-2)
ROWS, HELD_OUT, OTHER = 320, 100, 60
RATES_SEED, OTHER_SEED = 40, 4_711  # not among the seeds that count; not the seed of the pretraining


def main() -> None:
    """Every method with every seed; a table and one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a smoke run: small, once, proves nothing")
    parser.add_argument("--rates", action="store_true", help="every method at every rate")
    parser.add_argument("--only", nargs="*", default=[], help="methods that contain one of these words")
    given = parser.parse_args()
    share = 20 if given.quick else 1
    chosen = {n: s for n, s in METHODS.items() if not given.only or any(w in n for w in given.only)}
    if given.rates:
        for name, settings in chosen.items():
            for rate in RATES:
                row = measure({**settings, "learning_rate": rate}, RATES_SEED, share)
                print(f"{name:<30} {rate:<8g} {_short(row)}", flush=True)
        return
    seeds = (0,) if given.quick else (0, 1, 2)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in chosen}
    for seed in seeds:
        for name, settings in chosen.items():
            found[name].append(measure(settings, seed, share))
            print(f"  seed {seed}, {name}: {_short(found[name][-1])}", flush=True)
    print(table(found))
    print(json.dumps({"bench": "sft_methods", "seeds": seeds, "rows": ROWS // share, "figures": found}))


def measure(settings: dict[str, Any], seed: int, share: int = 1) -> dict[str, float]:
    """Fine-tune the built-in model; losses before and after, of the task and of other text, and what it took."""
    from palate.hardware import probe
    from palate.models import load
    from palate.sft import methods
    from palate.sft.fitting import fit, validation_loss

    config = SftConfig(seed=seed, device="cpu", **settings)
    loaded = load(None, "builtin", probe("cpu", "auto"))
    rows, held_out = task(loaded.encoder, seed, share)
    others = {kind: other(loaded, kind, share) for kind in ("text", "chat")}
    base = {kind: validation_loss(loaded.model, loaded, some) for kind, some in others.items()}
    before = validation_loss(loaded.model, loaded, held_out)
    model = methods.trainee(loaded, config)
    trains = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    start = time.perf_counter()
    fit(model, loaded, rows, config, lambda step, figures: None)
    seconds = time.perf_counter() - start
    after = validation_loss(model, loaded, held_out)
    lost = {kind: validation_loss(model, loaded, some) for kind, some in others.items()}
    assert before is not None and after is not None
    return {
        "before": before,
        "after": after,
        **{f"{kind}_forgotten": (lost[kind] or 0.0) - (base[kind] or 0.0) for kind in others},
        "trainable": trains,
        "seconds": seconds,
    }


def task(encoder: Any, seed: int, share: int) -> tuple[list[Any], list[Any]]:
    """(rows to learn, rows held out) of the demo's task."""
    import pyarrow as pa

    from palate.data.demo import demonstrations
    from palate.sft.dataset import encode

    shown = demonstrations((ROWS + HELD_OUT) // share, seed)
    content = [
        {
            "messages": json.dumps([{"role": "user", "content": prompt}]),
            "completion": answer,
            "finish_reason": None,
        }
        for prompt, answer in shown
    ]
    rows = encode(pa.Table.from_pylist(content), encoder, 1024)
    return rows[: ROWS // share], rows[ROWS // share :]


def other(loaded: Any, kind: str, share: int) -> list[Any]:
    """Documents of a kind that the base was trained on, every token of which counts."""
    from palate.data import demo_english
    from palate.sft.dataset import Row

    rng = random.Random(f"{kind}/{OTHER_SEED}")

    def texts() -> Iterator[str]:
        for _ in range(OTHER // min(share, 10)):
            if kind == "text":
                yield demo_english.text(rng)
            else:
                yield loaded.tokenizer.apply_chat_template(demo_english.chat(rng), tokenize=False)

    ids = loaded.tokenizer(list(texts()))["input_ids"]
    return [Row(one, one, False, False) for one in ids]


def table(found: dict[str, list[dict[str, float]]]) -> str:
    """One line per method: means over the seeds with their standard deviations, and the same of the differences to the
    first method with the same seed, since seeds differ more than methods."""
    head = "| method | trains | validation loss | less the first's | English | conversations | seconds |"
    lines = [head, "|---|---|---|---|---|---|---|"]
    first = next(iter(found.values()))
    for name, runs in found.items():
        paired = [{"after": run["after"] - other["after"]} for run, other in zip(runs, first, strict=True)]
        lines.append(
            f"| {name} | {runs[0]['trainable']:,.0f} | {_spread(runs, 'after', '.3f')} | "
            f"{_spread(paired, 'after', '+.3f')} | "
            f"{_spread(runs, 'text_forgotten', '+.3f')} | {_spread(runs, 'chat_forgotten', '+.3f')} | "
            f"{statistics.mean(run['seconds'] for run in runs):.0f} |"
        )
    return "\n".join(["", f"before: {_spread(first, 'before', '.3f')}", "", *lines, ""])


def _spread(runs: Sequence[dict[str, float]], name: str, style: str) -> str:
    values = [run[name] for run in runs]
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):{style}} ± {spread:.3f}"


def _short(row: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in row.items())


if __name__ == "__main__":
    main()
