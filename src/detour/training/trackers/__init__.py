"""Programs that draw runs while they go on, one small module each."""
