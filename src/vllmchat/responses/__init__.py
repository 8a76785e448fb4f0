"""OpenAI's Responses API: items instead of messages, and streams of named events."""
