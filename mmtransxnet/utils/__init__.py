"""What all other rooms use; knows nothing of them."""
