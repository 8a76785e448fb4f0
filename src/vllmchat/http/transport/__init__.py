"""Bytes to and from one server: sockets, connections, pools, and a caller's own client."""
