"""Degradations: what was done to the clean image."""
