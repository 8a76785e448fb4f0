"""Tokens in, tokens out: prompts rendered by one server, generated from by another or the same."""
