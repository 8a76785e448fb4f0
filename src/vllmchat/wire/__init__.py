"""JSON as servers read and send it."""
