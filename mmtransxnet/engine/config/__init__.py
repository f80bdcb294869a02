"""Read configs and the command line, strictly."""
