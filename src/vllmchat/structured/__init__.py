"""Replies as Python values."""
