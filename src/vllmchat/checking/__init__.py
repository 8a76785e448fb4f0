"""Validation of request parameters before anything is sent."""
