"""A robot of Handle's class: wheels on legs."""
