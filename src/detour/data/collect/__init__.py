"""Training rows out of what people already have: documents, code, and logs of feedback."""
