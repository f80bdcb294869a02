"""Time and memory of TransXNet, its published formula and its peers."""
