"""Samples follow the model's own distribution, stop where they should, and repeat with the seed."""

from pathlib import Path

import pytest
import torch

from palate.config import UserError
from palate.generation import Sampled, next_tokens, sample
from palate.hardware import probe
from palate.models import Loaded, load

CPU = probe("cpu", "float32")
NAMES = ("gpt2", "qwen2", "llama")
PROMPTS = [[{"role": "user", "content": "the key " * n}] for n in (1, 9, 3, 20, 2)]


@pytest.fixture(params=NAMES)
def loaded(request: pytest.FixtureRequest, tiny_models: dict[str, Path]) -> Loaded:
    return load(None, str(tiny_models[request.param]), CPU)


def test_greedy_equals_token_by_token_without_a_cache(loaded: Loaded) -> None:
    found = sample(loaded, PROMPTS, k=2, temperature=0, max_new_tokens=12, batch_size=6)
    for prompt, completions in zip(PROMPTS, found, strict=True):
        ids = loaded.encoder.prompt(prompt)
        start = len(ids)
        while len(ids) < start + 12 and (len(ids) == start or ids[-1] not in loaded.encoder.stop_ids):
            with torch.no_grad():
                ids.append(int(loaded.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        assert [c.token_ids for c in completions] == [ids[start:]] * 2


def test_same_seed_same_samples_whatever_the_batches(loaded: Loaded) -> None:
    together = sample(loaded, PROMPTS, k=3, max_new_tokens=10, seed=5, batch_size=128)
    torch.rand(3)
    assert sample(loaded, PROMPTS, k=3, max_new_tokens=10, seed=5, batch_size=3) == together
    assert sample(loaded, PROMPTS, k=3, max_new_tokens=10, seed=6) != together
    assert all(len({tuple(c.token_ids) for c in row}) == 3 for row in together)


def test_stops_and_compacts(loaded: Loaded) -> None:
    """With a third of the vocabulary made to stop, rows leave the batch at different times."""
    loaded.encoder.stop_ids = tuple(range(0, 400, 3))
    ticks: list[int] = []
    found = sample(loaded, PROMPTS, k=4, max_new_tokens=30, seed=1, progress=ticks.append)
    assert sum(ticks) == 20
    for completion in (c for row in found for c in row):
        stopped = [i in loaded.encoder.stop_ids for i in completion.token_ids]
        assert completion.finish_reason == "stop"
        assert stopped == [False] * (len(stopped) - 1) + [True]
        assert completion.text == loaded.encoder.decode(completion.token_ids[:-1])
    alone = sample(loaded, PROMPTS[:1], k=4, max_new_tokens=30, seed=1)
    assert alone[0] == found[0]


def test_length_limit(loaded: Loaded) -> None:
    loaded.encoder.stop_ids = (399,)
    found = sample(loaded, PROMPTS[:1], max_new_tokens=3, temperature=0)[0][0]
    assert found == Sampled(loaded.encoder.decode(found.token_ids), found.token_ids, "length")
    assert len(found.token_ids) == 3


def test_samples_have_the_models_probabilities() -> None:
    logits = torch.tensor([[0.0, 2.0, -1.0, 1.0]])
    uniform = (torch.arange(10_000) + 0.5) / 10_000
    rows = logits.expand(10_000, 4)

    def shares(temperature: float, top_p: float) -> torch.Tensor:
        return torch.bincount(next_tokens(rows, uniform, temperature, top_p), minlength=4) / 10_000

    assert torch.allclose(shares(1, 1), logits[0].softmax(-1), atol=2e-4)
    assert torch.allclose(shares(0.5, 1), (2 * logits[0]).softmax(-1), atol=2e-4)
    probabilities = logits[0].softmax(-1)  # 0.087, 0.644, 0.032, 0.237
    kept = probabilities * torch.tensor([0, 1, 0, 1])
    assert torch.allclose(shares(1, 0.8), kept / kept.sum(), atol=2e-4)
    assert shares(1, 0.5).tolist() == [0, 1, 0, 0]
    assert shares(0, 1).tolist() == [0, 1, 0, 0]


def test_prompt_longer_than_the_context_loses_its_start(loaded: Loaded) -> None:
    long = [[{"role": "user", "content": "cat " * 900}]]
    assert len(sample(loaded, long, max_new_tokens=5)[0][0].token_ids) >= 1
    with pytest.raises(UserError, match="leaves no room in the model's 512 tokens"):
        sample(loaded, PROMPTS, max_new_tokens=512)


def test_settings_out_of_range(loaded: Loaded) -> None:
    for wrong in ({"k": 0}, {"temperature": -1.0}, {"top_p": 0.0}, {"max_new_tokens": 0}):
        with pytest.raises(UserError):
            sample(loaded, PROMPTS, **wrong)  # type: ignore[arg-type]
    assert sample(loaded, []) == []
