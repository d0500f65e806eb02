"""The loop: watch, retrain, gate, release step by step, promote or go back."""
