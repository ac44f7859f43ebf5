"""From a description of a task to an adapter, in one forward pass."""
