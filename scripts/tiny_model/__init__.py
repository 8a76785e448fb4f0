"""A language model of 2.6 million parameters that knows a small script by heart."""
