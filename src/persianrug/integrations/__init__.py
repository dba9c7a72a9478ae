"""Other libraries' hooks, made of persianrug's parts; each module imports its library."""
