"""Export of trained models, and what runs them without PyTorch."""
