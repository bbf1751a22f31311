"""Policies trained on preferences: direct preference optimisation."""
