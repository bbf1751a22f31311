"""What each way of training takes in memory, by arithmetic: the tables of docs/scale.md, for Llama's 1B, 8B and 70B.

    python benchmarks/memory_arithmetic.py

Numbers of weights come from transformers and peft on the meta device, which holds none. The formula of the activations is what
autograd keeps of a Llama, to the byte (tests/test_memory_arithmetic.py); what is measured is in memory_measured.py. GB are 10^9 bytes.
"""

from typing import Any, NamedTuple

import torch
from transformers import LlamaConfig, LlamaForCausalLM

GROUPED = {"vocab_size": 128_256, "num_key_value_heads": 8, "tie_word_embeddings": False}
SHAPES = {
    "1B": LlamaConfig(**{**GROUPED, "num_hidden_layers": 16, "hidden_size": 2048, "num_attention_heads": 32,
                         "intermediate_size": 8192, "tie_word_embeddings": True}),
    "8B": LlamaConfig(**GROUPED, num_hidden_layers=32, hidden_size=4096, num_attention_heads=32, intermediate_size=14_336),
    "70B": LlamaConfig(**GROUPED, num_hidden_layers=80, hidden_size=8192, num_attention_heads=64, intermediate_size=28_672),
}  # fmt: skip
TRAINED = 16  # bytes of a weight that trains, in float32: itself, its gradient, Adam's two moments
HELD = 4  # of one that doesn't
QUANTISED = 0.52  # of one in 4 bits, with its scales
RANK, QLORA_RANK = 16, 64
PACKED = 8192  # tokens of a micro-batch of sft on a GPU
TREES = (
    2048  # tokens of a micro-batch of reward, dpo and ppo in these tables; training.token_budget adapts them
)
ROLLOUT, WRITTEN = 128, 1024  # answers at once, and the tokens of each with its prompt
CHUNK = {"cuda": 1 << 26, "cpu": 1 << 20}  # logits at one time (tree_kernels)


class Counts(NamedTuple):
    """Numbers of weights."""

    all: int
    linear: int  # of the layers' linear maps, which adapters stand on and 4 bits are for
    head: int
    adapter: int  # of one LoRA adapter


def counts(config: Any, rank: int) -> Counts:
    """Of a Llama of this shape."""
    from palate.models import lora

    with torch.device("meta"):
        model = LlamaForCausalLM(config)
        head = model.lm_head.weight
        linear = sum(one.weight.numel() for one in model.modules() if isinstance(one, torch.nn.Linear))
        every = sum(one.numel() for one in model.parameters())  # tied ones count once
        adapted = lora(model, rank, 2 * rank, 0)
    trained = sum(one.numel() for one in adapted.parameters() if one.requires_grad)
    return Counts(every, linear - head.numel(), head.numel(), trained)


def layer_bytes(config: Any, dtype: torch.dtype, rank: int | None) -> int:
    """What autograd keeps of one token in one layer; `rank`: of LoRA on frozen weights, None: every weight trains.

    Attention through a kernel that keeps no scores. D channels, K of keys, F of the MLP, h heads.
    """
    d, f, h = config.hidden_size, config.intermediate_size, config.num_attention_heads
    k = d // h * config.num_key_value_heads
    linear_inputs_and_attention = (
        4 * d + 2 * k + 4 * f
    )  # norms' outputs, query, attention's output; key, value; MLP
    if dtype == torch.float32:
        norms = (
            4 * d if rank is None else 2 * d
        )  # their inputs, and where their weights train what these multiply
        return 4 * (norms + linear_inputs_and_attention + 7 * (rank or 0) + h + 2)
    norms = 4 * 4 * d if rank is None else 4 * 2 * d
    again = 3 * d  # inputs that several maps share are cast for each
    return norms + 2 * (linear_inputs_and_attention + again + 7 * (rank or 0)) + 4 * (h + 2)


def activations(config: Any, tokens: int, dtype: torch.dtype, rank: int | None, checkpointing: bool) -> int:
    """Bytes kept of a micro-batch between forward and backward, without the head."""
    layers, layer = config.num_hidden_layers, layer_bytes(config, dtype, rank)
    kept = layer + 4 * config.hidden_size * layers if checkpointing else layer * layers
    return tokens * kept


def casts(config: Any, found: Counts, rank: int | None, checkpointing: bool) -> float:
    """bfloat16 copies of the layers' float32 weights, which autocast keeps for the backward pass."""
    alive = found.linear / config.num_hidden_layers if checkpointing and rank else found.linear
    return 2.0 * alive + (2.0 * found.adapter if rank else 0.0)


def held(found: Counts, config: Any, qlora: Counts) -> dict[str, float]:
    """Weights, gradients and optimiser, by what trains: what is there all the time."""
    w, a, head = found.all, found.adapter, config.hidden_size + 1
    ppo = HELD * w + 2 * TRAINED * a + HELD * (a + head) + TRAINED * head
    frozen = HELD * (w - qlora.linear) + QUANTISED * qlora.linear
    return {
        "sft --method full": TRAINED * w,
        "sft --method lora, rank 16": HELD * w + TRAINED * a,
        "sft --method qlora, rank 64": frozen + TRAINED * qlora.adapter,
        "reward": HELD * w + TRAINED * (a + head),
        "dpo (its reference was computed before)": HELD * w + TRAINED * a,
        "ppo: policy, value, reward as adapters, reference = none of them": ppo,
        "four models, LoRA on policy and value": 4 * HELD * w + 2 * TRAINED * a,
        "four models, every weight of policy and value trains": 2 * TRAINED * w + 2 * HELD * w,
    }


def table_held() -> str:
    """The first table: float32 as it is, and with the frozen weights in bfloat16."""
    rows: dict[str, list[str]] = {}
    for shape in SHAPES.values():
        found, qlora = counts(shape, RANK), counts(shape, QLORA_RANK)
        frozen = {"four models, LoRA on policy and value": 4 * found.all, "sft --method full": 0,
                  "four models, every weight of policy and value trains": 2 * found.all,
                  "sft --method qlora, rank 64": qlora.all - qlora.linear}  # fmt: skip
        for name, size in held(found, shape, qlora).items():
            saved = 2 * frozen.get(name, found.all)
            rows.setdefault(name, []).append(gb(size) + (f" ({gb(size - saved)})" if saved else ""))
    return markdown(["", *SHAPES], [[name, *cells] for name, cells in rows.items()])


def parts(name: str) -> dict[str, float]:
    """What comes on top of what is held, of the model of this size, in bytes."""
    config, lora, full = SHAPES[name], RANK, None
    found = counts(config, RANK)
    k = config.hidden_size // config.num_attention_heads * config.num_key_value_heads
    bf16 = torch.bfloat16
    return {
        f"activations of {PACKED:,} tokens, lora": activations(config, PACKED, bf16, lora, False),
        f"activations of {PACKED:,} tokens, lora, checkpointing": activations(config, PACKED, bf16, lora, True),
        f"activations of {PACKED:,} tokens, full, checkpointing": activations(config, PACKED, bf16, full, True),
        f"activations of {TREES:,} tokens, lora": activations(config, TREES, bf16, lora, False),
        "bfloat16 copies of the layers' weights": casts(config, found, lora, False),
        "the same with checkpointing and frozen weights": casts(config, found, lora, True),
        f"logits of sft, {PACKED:,} tokens": 12.0 * PACKED * config.vocab_size,
        "logits of reward: none": 0.0,
        "logits of dpo and ppo, a chunk, and the head in bfloat16": 14.0 * CHUNK["cuda"] + 2.0 * found.head,
        f"keys and values of {ROLLOUT} answers of {WRITTEN:,} tokens, ppo": 6.0 * k * config.num_hidden_layers * ROLLOUT * WRITTEN,
    }  # fmt: skip


def table_parts() -> str:
    """The second table."""
    columns = [parts(name) for name in SHAPES]
    return markdown(["", *SHAPES], [[row, *(gb(column[row]) for column in columns)] for row in columns[0]])


def totals(name: str) -> dict[str, float]:
    """Peaks of a process, in bytes: bfloat16 arithmetic on float32 weights."""
    config = SHAPES[name]
    found, qlora = counts(config, RANK), counts(config, QLORA_RANK)
    always, extra = held(found, config, qlora), parts(name)
    layer, bf16 = found.linear / config.num_hidden_layers, torch.bfloat16
    logits = extra[f"logits of sft, {PACKED:,} tokens"]
    full = activations(config, PACKED, bf16, None, True) + logits
    lora = activations(config, PACKED, bf16, RANK, True) + logits + casts(config, found, RANK, True)
    # whole at one time: two layers and a gradient of one in float32, two bfloat16 copies, the head and its gradient
    whole = (3 * 4 + 2 * 2) * layer + 2 * 4 * found.head
    trees = extra[f"activations of {TREES:,} tokens, lora"] + extra["bfloat16 copies of the layers' weights"]
    update = trees + extra["logits of dpo and ppo, a chunk, and the head in bfloat16"]
    rollout = extra[f"keys and values of {ROLLOUT} answers of {WRITTEN:,} tokens, ppo"]
    ppo = always["ppo: policy, value, reward as adapters, reference = none of them"]
    return {
        "sft --method full": always["sft --method full"] + full + casts(config, found, None, True),
        "sft --method full, FSDP over 8, while it trains": always["sft --method full"] / 8 + full + whole,
        "sft --method full, FSDP over 8, before and after": HELD * found.all,
        "sft --method lora": always["sft --method lora, rank 16"] + lora,
        "sft --method lora, FSDP over 8, while it trains": always["sft --method lora, rank 16"] / 8
        + lora
        + whole,
        "sft --method qlora": always["sft --method qlora, rank 64"] + lora,
        "reward": always["reward"] + trees,
        "dpo": always["dpo (its reference was computed before)"] + update,
        "ppo": ppo + max(update, rollout),
    }


def table_totals() -> str:
    """The third table."""
    columns = [totals(name) for name in SHAPES]
    return markdown(["", *SHAPES], [[row, *(gb(column[row]) for column in columns)] for row in columns[0]])


def gb(size: float) -> str:
    """10^9 bytes, three digits."""
    value = size / 1e9
    return "0" if not size else f"{value:,.0f}" if value >= 99.5 else f"{value:.1f}" if value >= 9.95 else f"{value:.2f}"  # fmt: skip


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def trees_bytes(config: Any, trees: list[Any]) -> int:
    """What a micro-batch of prompt trees keeps on a CPU in float32 with LoRA: `activations`, scores, copied keys and values."""
    from palate.tree_kernels import SMALL_TREE
    from palate.tree_packing import tree_tokens

    tokens, scores, copied = 0, 0, 0
    for tree in trees:
        size, prompt = tree_tokens(tree), len(tree.prompt)
        tokens += size
        if size <= SMALL_TREE:
            scores += size * size
            continue
        wholes = [prompt + len(completion) for completion in tree.completions]
        scores += prompt * prompt + sum((whole - prompt) * whole for whole in wholes)
        copied += sum(wholes)
    attention = config.num_attention_heads * scores + 2 * config.hidden_size * copied
    return activations(config, tokens, torch.float32, RANK, False) + 4 * config.num_hidden_layers * attention


if __name__ == "__main__":
    print(f"{table_held()}\n\n{table_parts()}\n\n{table_totals()}")
