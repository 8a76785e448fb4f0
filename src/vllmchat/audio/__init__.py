"""Speech to text: transcriptions, and translations of what was said."""
