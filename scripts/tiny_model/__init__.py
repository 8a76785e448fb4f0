"""A language model of 2.6 million parameters that has memorized a small script."""
