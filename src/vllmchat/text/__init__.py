"""Completions: text goes on where a prompt ends, without messages and without a chat template."""
