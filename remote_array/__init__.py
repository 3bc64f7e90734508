"""remote_array."""
