"""Models that return numbers instead of text: embeddings, classes, scores."""
