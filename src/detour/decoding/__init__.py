"""Token ids out of a frozen model, one chain per row."""
