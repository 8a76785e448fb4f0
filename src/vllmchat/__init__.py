"""The typed Python client for vLLM."""
