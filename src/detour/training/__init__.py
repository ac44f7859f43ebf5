"""Training an adapter from rows."""
