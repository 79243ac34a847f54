"""Pretrained denoisers: what clean images look like."""
