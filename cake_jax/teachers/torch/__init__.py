"""PyTorch networks and weights as teachers, and our weights in PyTorch's names and layouts."""
