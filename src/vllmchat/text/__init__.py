"""Completions: the model continues a prompt, without messages or a chat template."""
