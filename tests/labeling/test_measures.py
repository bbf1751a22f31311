"""Intervals and agreement against published and hand-worked figures."""

import pytest

from palate.labeling.measures import agreement, clustered_share, krippendorff_alpha, wilson


def test_wilson_against_a_published_interval() -> None:
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 5)[0] == 0.0
    assert wilson(5, 5)[1] == 1.0


def test_one_pair_per_vote_is_plain_wilson() -> None:
    share = clustered_share([(1.0, 1)] * 8 + [(0.0, 1)] * 2, "")
    assert (share.low, share.high) == pytest.approx(wilson(8, 10))
    assert (share.value, share.n) == (0.8, 10)


def test_pairs_of_one_ranking_do_not_count_as_independent() -> None:
    # ten rankings of four, each all one way: six pairs say no more than one
    share = clustered_share([(6.0, 6)] * 7 + [(0.0, 6)] * 3, "")
    assert (share.value, share.n) == (0.7, 60)
    assert (share.low, share.high) == pytest.approx(wilson(7, 10))
    all_one_way = clustered_share([(6.0, 6)] * 10, "")
    assert (all_one_way.low, all_one_way.high) == pytest.approx(wilson(10, 10))


def test_nothing_to_share_says_why() -> None:
    share = clustered_share([], "no vote yet")
    assert (share.value, share.low, share.n, share.why) == (None, None, 0, "no vote yet")


def test_alpha_against_the_published_example() -> None:
    # Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", section C: nominal data, alpha = 0.743
    observers = ["12332141 2...", "123322412 5.3", ".33323422 51.", "123324412 51."]
    rows = [row.replace(" ", "") for row in observers]
    units = [[row[i] for row in rows if row[i] != "."] for i in range(12)]
    alpha, why = krippendorff_alpha(units)
    assert alpha == pytest.approx(0.743, abs=5e-4)
    assert why == ""


def test_alpha_that_is_undefined_says_why() -> None:
    assert krippendorff_alpha([["a"], ["b"]]) == (None, "no pair was decided by two annotators")
    alpha, why = krippendorff_alpha([["a", "a"], ["a", "a"]])
    assert alpha is None
    assert "same label" in why


def test_alpha_of_guessing_is_about_zero() -> None:
    units = [["x", "x"], ["x", "y"], ["y", "x"], ["y", "y"]] * 250
    alpha, _ = krippendorff_alpha(units)
    assert alpha == pytest.approx(0.0, abs=2e-3)


def test_agreement_by_hand() -> None:
    labels = [
        ("c1", "p", "anna", "first"), ("c1", "p", "ben", "first"),
        ("c2", "p", "anna", "first"), ("c2", "p", "ben", "second"),
        ("c3", "p", "anna", "second"), ("c3", "p", "ben", "second"), ("c3", "p", "cleo", "second"),
        ("c4", "p", "anna", "tie"),
    ]  # fmt: skip
    found = agreement(labels)
    assert found.percent.value == pytest.approx(4 / 5)  # 1 of 1, 0 of 1, 3 of 3; c4 has one annotator
    assert (found.percent.n, found.pairs, found.annotators) == (3, 3, 3)
    # n = 7 labels, 3 first and 4 second; D_o = 2 ordered disagreements / 1; D_e = (49 - 9 - 16) / 6
    assert found.alpha == pytest.approx(1 - 2 / 4)
    assert found.percent.low is not None and found.percent.high is not None
    assert 0 <= found.percent.low <= 0.8 <= found.percent.high <= 1


def test_agreement_without_overlap_says_why() -> None:
    found = agreement([("c1", "p", "anna", "first"), ("c2", "p", "ben", "first")])
    assert (found.percent.value, found.alpha) == (None, None)
    assert found.percent.why == "no comparison was answered by two annotators"
    one = agreement([("c1", "p", "anna", "first"), ("c1", "p", "ben", "tie")])
    assert (one.percent.value, one.percent.low, one.percent.n) == (0.0, None, 1)
