"""What dpo_speed and reward_speed share: a random model, random rankings, the settings of LoRA.

Token ids are random words of a word-level tokenizer, so the peer, which takes text, sees the ids we see. Lengths
are log-normal with the spread of real prompts and answers (sigma 0.6), since padding is part of the cost.
"""

import random
from typing import Any

EOS = 0  # id of the token that ends a completion; words are 2 .. vocabulary - 1
SIGMA = 0.6


def tiny_llama(vocabulary: int, large: bool = False) -> Any:
    """Six layers of 256, the shape of the baselines: 5.9M weights at a vocabulary of 4,096. `large`: twelve of 768, 97M
    at 16,000."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    width, layers, heads = (768, 12, 12) if large else (256, 6, 4)
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=width, intermediate_size=11 * width // 4, num_hidden_layers=layers, num_attention_heads=heads,
        max_position_embeddings=4096, tie_word_embeddings=True, bos_token_id=None, eos_token_id=EOS, pad_token_id=1,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def tokenizer(vocabulary: int) -> Any:
    """One token per word `wN`; `<eos>` is 0, `<pad>` 1."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {"<eos>": EOS, "<pad>": 1} | {f"w{i}": i for i in range(2, vocabulary)}
    raw = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>", pad_token="<pad>")


def words(ids: list[int]) -> str:
    """The text whose tokens are `ids`."""
    return " ".join(f"w{i}" for i in ids)


def random_rankings(
    rows: int, k: int, prompt: int, completion: int, vocabulary: int, seed: int = 0
) -> list[dict[str, Any]]:
    """`rows` prompts with `k` completions, best first, of the given mean lengths; completions end with eos."""
    draw = random.Random(seed)

    def ids(mean: int) -> list[int]:
        length = max(2, round(draw.lognormvariate(0, SIGMA) * mean / 2.718281828 ** (SIGMA**2 / 2)))
        return [draw.randrange(2, vocabulary) for _ in range(length)]

    return [
        {"prompt": ids(prompt), "completions": [[*ids(completion - 1), EOS] for _ in range(k)]}
        for _ in range(rows)
    ]


def lora_config(task: str) -> Any:
    """Rank 16 on all linear layers, no dropout."""
    from peft import LoraConfig

    return LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type=task)
