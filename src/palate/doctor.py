"""Checks that training is what it claims to be: cheap, before and after each stage, one plain sentence when not.

Alignment fails silently: a loss goes down while no weight moves, while the answers lost their ends, or while the
reference is not the model one started from. Each function here takes figures that a stage has anyway and raises
`DoctorError`; those that only warn return the sentence instead. Nothing here loads a model or reads a file.
"""

import hashlib
import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from palate.config import UserError
from palate.data.records import Run

IGNORE = -100  # label of a token that does not count in the loss


class DoctorError(UserError):
    """A check failed; the message says what that means and what to do."""


def check_template(parents: Iterable[Run], template_hash: str) -> None:
    """The chat template and tokenizer are those that the parents were made with."""
    for parent in parents:
        if parent.template_hash is not None and parent.template_hash != template_hash:
            raise DoctorError(
                f"the chat template or tokenizer differs from the one {parent.id} was made with "
                f"({template_hash[:8]} instead of {parent.template_hash[:8]}); start from {parent.id}'s model, "
                "or make that run again"
            )


def check_stop_labels(
    labels: Sequence[Sequence[int]], stop_ids: Sequence[int], cut: Sequence[bool], share: float = 0.99
) -> float:
    """The last label of at least `share` of the rows that were not cut is a stop token; returns the share found.

    `labels`: one list per row, `IGNORE` where nothing is learned; `cut`: rows that lost their end on purpose.
    """
    stops = set(stop_ids)
    ends = [row[-1] in stops for row, was_cut in zip(labels, cut, strict=True) if not was_cut]
    if not ends:
        raise DoctorError("every answer is cut, so the model would never learn to stop; raise --max-length")
    found = sum(ends) / len(ends)
    if found < share:
        raise DoctorError(
            f"only {found:.1%} of the answers end with a stop token, so the model would not learn to stop; "
            "check the chat template's end of an assistant turn"
        )
    return found


def check_labels(labels: Sequence[Sequence[int]]) -> None:
    """Every row has at least one token to learn from (an empty row makes the loss 0 / 0)."""
    empty = sum(all(label == IGNORE for label in row) for row in labels)
    if empty:
        raise DoctorError(
            f"{empty} rows have no token to learn from; raise --max-length or drop empty answers"
        )


def check_double_bos(rows: Iterable[Sequence[int]], bos_id: int | None) -> None:
    """No row starts with two beginning-of-sequence tokens (a template and a tokenizer that both add one)."""
    double = sum(list(row[:2]) == [bos_id, bos_id] for row in rows) if bos_id is not None else 0
    if double:
        raise DoctorError(
            f"{double} rows start with two bos tokens: the chat template and the tokenizer both add one"
        )


def cut_message(cut_prompts: int, cut_completions: int, rows: int, max_length: int) -> str | None:
    """What was cut, in one sentence; None when nothing was."""
    if not cut_prompts and not cut_completions:
        return None
    return (
        f"of {rows} rows, {cut_prompts} prompts lost their start and {cut_completions} answers their end at "
        f"{max_length} tokens; --max-length raises that"
    )


def fingerprint(model: nn.Module, trainable: bool = True) -> str:
    """A hash of the weights that train (or of those that don't), to tell afterwards whether they moved."""
    return weights_hash(
        (name, one) for name, one in model.named_parameters() if one.requires_grad == trainable
    )


def weights_hash(named: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 over names and bytes of weights."""
    digest = hashlib.sha256()
    for name, parameter in named:
        digest.update(name.encode())
        digest.update(parameter.detach().reshape(-1).cpu().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def check_trainable(model: nn.Module) -> int:
    """Something trains, and it is float32; returns how many weights."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not trainable:
        raise DoctorError("no weight would train: the model is loaded frozen")
    kinds = {str(parameter.dtype).removeprefix("torch.") for parameter in trainable}
    if kinds != {"float32"}:
        raise DoctorError(
            f"trainable weights are {', '.join(sorted(kinds))}; small steps would round to nothing, load them as float32"
        )
    return sum(parameter.numel() for parameter in trainable)


def check_moved(before: str, after: str) -> None:
    """The trained weights differ from what they were (two fingerprints)."""
    if before == after:
        raise DoctorError("no weight moved during training; raise --learning-rate or --epochs")


def check_frozen(before: str, after: str) -> None:
    """The frozen weights (base, reference) are what they were (two fingerprints)."""
    if before != after:
        raise DoctorError("weights that must stay frozen have moved, so the reference is no longer the start")


def check_dtype(model: nn.Module, before: Sequence[torch.dtype]) -> None:
    """The weights' types are those from before (a rollout or a library may leave others behind)."""
    if [parameter.dtype for parameter in model.parameters()] != list(before):
        raise DoctorError(
            "the weights' number type changed during the stage; later steps would lose precision"
        )


def check_finite(loss: float, step: int) -> None:
    """The loss is a number."""
    if not math.isfinite(loss):
        raise DoctorError(f"the loss is {loss} at step {step}; lower --learning-rate")


def check_step0(loss: float, expected: float = math.log(2), tolerance: float = 1e-3) -> None:
    """Before the first step a preference loss is `expected`: policy and reference are the same model."""
    if not abs(loss - expected) <= tolerance:
        raise DoctorError(
            f"the loss before the first step is {loss:.4f} instead of {expected:.4f}: the policy does not start as "
            "its reference"
        )


def check_reload(before: Tensor, after: Tensor, tolerance: float = 1e-4) -> float:
    """Scores (N,) of the same rows before saving and after loading agree; returns the largest difference."""
    difference = float((before - after).abs().max())
    if not difference < tolerance:
        raise DoctorError(
            f"after saving and loading, scores differ by {difference:.4g}: the head was not saved right"
        )
    return difference


def check_padding(alone: Tensor, padded: Tensor, tolerance: float = 1e-3) -> float:
    """Scores (N,) of rows alone and of the same rows in a padded batch agree; returns the largest difference."""
    difference = float((alone - padded).abs().max())
    if not difference < tolerance:
        raise DoctorError(
            f"scores depend on padding (they differ by {difference:.4g}): the wrong token is scored"
        )
    return difference


def stop_rate(finish_reasons: Sequence[str | None]) -> float:
    """Share of completions that ended by themselves; 1.0 for none."""
    return sum(r == "stop" for r in finish_reasons) / len(finish_reasons) if finish_reasons else 1.0


def stop_warning(rate: float, least: float = 0.9) -> str | None:
    """One sentence when too few completions end by themselves."""
    if rate >= least:
        return None
    return (
        f"only {rate:.0%} of the sampled answers ended by themselves; train longer, or raise --max-new-tokens if "
        "they are simply long"
    )
