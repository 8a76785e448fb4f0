"""Completions: a prompt as it is, without a chat template."""
