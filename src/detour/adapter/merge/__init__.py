"""Approximate ways to make one adapter of several, on request; `Chain.flatten` is the exact one."""
