"""What the tests share: local servers, recorded responses."""
