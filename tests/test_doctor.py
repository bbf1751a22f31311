"""Each check passes what is right and names what is wrong in one sentence."""

import math

import pytest
import torch

from palate import doctor
from palate.data.records import Run
from palate.doctor import DoctorError


def test_template() -> None:
    doctor.check_template([Run("sft-1", "sft", template_hash="aaaa"), Run("import-1", "import")], "aaaa")
    with pytest.raises(DoctorError, match="differs from the one sft-1 was made with"):
        doctor.check_template([Run("sft-1", "sft", template_hash="aaaa")], "bbbb")


def test_stop_labels() -> None:
    rows = [[-100, 5, 2]] * 99 + [[-100, 5, 5]]
    assert doctor.check_stop_labels(rows, [2, 3], [False] * 100) == 0.99
    assert doctor.check_stop_labels(rows[50:], [2], [False] * 49 + [True]) == 1.0
    with pytest.raises(DoctorError, match="only 98.0% of the answers end"):
        doctor.check_stop_labels(rows[50:], [2], [False] * 50)
    with pytest.raises(DoctorError, match="every answer is cut"):
        doctor.check_stop_labels(rows, [2], [True] * 100)


def test_labels() -> None:
    doctor.check_labels([[-100, 4]])
    with pytest.raises(DoctorError, match="1 rows have no token"):
        doctor.check_labels([[-100, 4], [-100, -100]])


def test_double_bos() -> None:
    doctor.check_double_bos([[1, 5, 1]], 1)
    doctor.check_double_bos([[1, 1]], None)
    with pytest.raises(DoctorError, match="1 rows start with two bos"):
        doctor.check_double_bos([[1, 1, 5], [1, 5]], 1)


def test_cut_message() -> None:
    assert doctor.cut_message(0, 0, 9, 64) is None
    assert doctor.cut_message(2, 1, 9, 64) == (
        "of 9 rows, 2 prompts lost their start and 1 answers their end at 64 tokens; --max-length raises that"
    )


def test_weights() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))
    model[0].requires_grad_(False)
    types = [p.dtype for p in model.parameters()]
    trained, frozen = doctor.fingerprint(model), doctor.fingerprint(model, trainable=False)
    assert doctor.check_trainable(model) == 4
    with pytest.raises(DoctorError, match="no weight moved"):
        doctor.check_moved(trained, doctor.fingerprint(model))
    with torch.no_grad():
        model[1].weight[0, 0] += 1e-6
    doctor.check_moved(trained, doctor.fingerprint(model))
    doctor.check_frozen(frozen, doctor.fingerprint(model, trainable=False))
    with torch.no_grad():
        model[0].bias[0] += 1e-6
    with pytest.raises(DoctorError, match="must stay frozen"):
        doctor.check_frozen(frozen, doctor.fingerprint(model, trainable=False))
    doctor.check_dtype(model, types)
    with pytest.raises(DoctorError, match="are bfloat16"):
        doctor.check_trainable(model.bfloat16())
    with pytest.raises(DoctorError, match="type changed"):
        doctor.check_dtype(model, types)
    with pytest.raises(DoctorError, match="frozen"):
        doctor.check_trainable(model.requires_grad_(False))


def test_losses_and_scores() -> None:
    doctor.check_step0(math.log(2) + 5e-4)
    for wrong in (0.7806, math.nan):
        with pytest.raises(DoctorError, match="before the first step"):
            doctor.check_step0(wrong)
    doctor.check_finite(0.1, 3)
    with pytest.raises(DoctorError, match="nan at step 3"):
        doctor.check_finite(math.nan, 3)
    scores = torch.tensor([1.0, -2.0])
    assert doctor.check_reload(scores, scores + 5e-5) == pytest.approx(5e-5, rel=0.01)
    with pytest.raises(DoctorError, match="after saving and loading"):
        doctor.check_reload(scores, scores + 2e-4)
    doctor.check_padding(scores, scores + 5e-4)
    with pytest.raises(DoctorError, match="depend on padding"):
        doctor.check_padding(scores, scores * math.nan)


def test_stop_rate() -> None:
    assert doctor.stop_rate(["stop", "length", None, "stop"]) == 0.5
    assert doctor.stop_rate([]) == 1.0
    assert doctor.stop_warning(0.9) is None
    assert "only 50% of the sampled answers" in str(doctor.stop_warning(0.5))
