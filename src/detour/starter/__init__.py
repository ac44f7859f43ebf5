"""The tiny model that ships: weights, facts and tasks as data."""
