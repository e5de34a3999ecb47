"""Prompts to what the network reads: tokens, then hidden states and a pooled state."""
