"""Frozen base models: loading, chat, loss."""
