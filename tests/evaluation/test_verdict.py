def test_reward_lines_stand_beside_the_length_rule() -> None:
    from palate.evaluation.verdict import reward_lines

    found = {
        "scores": {"value": 0.75, "low": 0.72, "high": 0.78},
        "longer": {"value": 0.565, "low": 0.53, "high": 0.6},
        "pairs": 1245,
    }
    assert reward_lines({"reward_on_votes": found, "reward_accuracy": None}) == [
        "agrees with held-out votes on 75 % [72, 78] of 1245 pairs; the longer one wins: 56 % [53, 60]"
    ]
