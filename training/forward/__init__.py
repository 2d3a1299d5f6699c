"""The forward pass of every method that learns from judged replies: packed, prompts computed once, losses fused."""
