"""What the tests share: local servers, recorded answers."""
