"""What a user calls from Python."""
