"""Training on engines of others: several processes by PyTorch."""
