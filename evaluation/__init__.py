"""Before and after on held-out prompts: samples, win rates with intervals, KL, length, and an HTML report."""
