"""The probe gives a device and an arithmetic that exist here."""

import pytest
import torch

from palate.config import UserError
from palate.hardware import Hardware, probe


def test_cpu_float32_has_no_autocast() -> None:
    hardware = probe("cpu", "float32")
    assert (hardware.device, hardware.dtype) == (torch.device("cpu"), torch.float32)
    assert 1 <= hardware.threads == torch.get_num_threads()
    with hardware.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_bfloat16_is_autocast() -> None:
    with probe("cpu", "bfloat16").autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


def test_auto_takes_bfloat16_only_where_the_cpu_has_it() -> None:
    fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    assert (probe("cpu", "auto").dtype == torch.bfloat16) == fast


def test_autocast_leaves_weights_and_their_gradients_in_float32() -> None:
    layer = torch.nn.Linear(4, 1, bias=False)
    with probe("cpu", "bfloat16").autocast():
        output = layer(torch.ones(2, 4))
    output.float().sum().backward()
    assert layer.weight.grad is not None
    assert (output.dtype, layer.weight.dtype, layer.weight.grad.dtype) == (
        torch.bfloat16, torch.float32, torch.float32,
    )  # fmt: skip


def test_missing_device_is_one_sentence() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match="--device cuda"):
        probe("cuda", "auto")


def test_reads_well() -> None:
    assert str(Hardware(torch.device("cpu"), torch.bfloat16, 2)) == "cpu, bfloat16, 2 threads"
