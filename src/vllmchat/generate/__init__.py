"""Tokens in, tokens out: rendering prompts, and generating from them on the same server or another."""
