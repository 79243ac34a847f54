"""Posterior samplers, one to a file."""
