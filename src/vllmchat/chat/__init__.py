"""Chat completions: parameters, messages, replies, chunks and streams."""
