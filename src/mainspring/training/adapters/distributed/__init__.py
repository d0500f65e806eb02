"""Training on several processes in PyTorch."""
