"""Labeling: people rank completions in a browser, rules stand in for them in demos and tests. No torch here."""
