"""What a training would take, from the configuration alone."""
