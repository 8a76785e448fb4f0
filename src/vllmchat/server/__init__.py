"""The server itself: its state, its numbers, its administration."""
