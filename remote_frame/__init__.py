"""remote_frame."""
