"""How fast, against whom: `make bench` prints ratios against a baseline measured in the same run."""
