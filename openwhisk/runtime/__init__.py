"""What runs inside an element."""
