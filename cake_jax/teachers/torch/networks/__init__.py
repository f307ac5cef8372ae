"""PyTorch code of our architectures, one file each. An export copies such a file, so it imports PyTorch alone."""
