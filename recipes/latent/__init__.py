"""Whether the latent probe predicts what a training reaches: behind docs/teaching.md."""
