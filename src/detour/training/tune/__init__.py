"""Searching settings of a training: what may vary, the study, its trials, and what came of it."""
