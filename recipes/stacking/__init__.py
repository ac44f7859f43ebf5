"""What stacking adapters costs, and what helps: the experiment behind docs/stacking.md."""
