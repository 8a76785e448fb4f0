"""Responses: OpenAI's newer form of a chat, with items instead of messages and named events in its stream."""
