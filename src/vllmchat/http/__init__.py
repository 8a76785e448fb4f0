"""Bytes and time: connections, requests, retries, event streams. Knows nothing of chat."""
