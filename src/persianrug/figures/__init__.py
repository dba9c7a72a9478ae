"""Figures: one file each, data in, a picture out."""
