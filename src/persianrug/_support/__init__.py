"""How things are done here; no idea of sparse data is in it."""
