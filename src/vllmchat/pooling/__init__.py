"""Models that give numbers instead of text: embeddings, classes, scores."""
