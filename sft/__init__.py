"""Supervised fine-tuning: a starting model, through TRL."""
