"""What all generating endpoints share."""
