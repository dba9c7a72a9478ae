"""What tests of several files take."""
