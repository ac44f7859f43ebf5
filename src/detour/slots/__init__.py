"""The mechanism: places in a frozen model where adapters act."""
