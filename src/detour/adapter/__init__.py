"""Adapters as values: updates, chains, files. No model is needed here."""
