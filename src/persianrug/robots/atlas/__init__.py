"""A robot of Atlas's class: a humanoid with flat soles."""
