"""The classes that a user talks to a server with."""
