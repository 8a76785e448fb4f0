"""Python types and functions as JSON schemas."""
