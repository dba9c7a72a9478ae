"""A robot of Cassie's class: a biped with line feet and leaf springs."""
