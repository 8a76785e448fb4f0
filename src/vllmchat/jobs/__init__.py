"""Jobs: many inputs, their results as they come, and files of them."""
