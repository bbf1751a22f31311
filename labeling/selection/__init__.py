"""Which comparison comes next: what a vote would teach, what it costs, whether choosing helps. numpy only.

`information` scores comparisons for a reward model, `dpo_pairs` for DPO, `routing` matches them with annotators,
`seconds` predicts how long they take, `control` turns all of it off where it does not help. None of them knows of a
database or of HTTP.
"""
