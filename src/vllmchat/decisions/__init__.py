"""Questions about a text, answered with probabilities instead of text."""
