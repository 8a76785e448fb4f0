"""Conversations with tools, run to their answer."""
