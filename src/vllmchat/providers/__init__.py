"""The provider classes."""
