"""Chats and other calls for the rows of a Ray dataset. Needs `pip install 'vllmchat[ray]'`."""

from __future__ import annotations

from vllmchat.adapters.ray.dataset import chat_rows as chat_rows, map_rows as map_rows

__all__ = ["chat_rows", "map_rows"]
