"""Figures that only the reproduction draws."""
