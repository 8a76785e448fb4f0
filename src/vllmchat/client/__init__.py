"""How any request is sent: no endpoint is known here."""
