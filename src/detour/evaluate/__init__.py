"""Changing a model, then proving what changed."""
