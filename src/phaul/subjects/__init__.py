"""What is moved."""
