"""What a chat is on the wire: parameters, messages, replies, chunks, streams."""
