"""What a step costs on a GPU, counted on tensors without data."""
