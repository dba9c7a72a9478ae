"""Simulated robots that feel through a skin."""
