"""Weights in fewer bits: one file a scheme, `apply` for which layers, `layer` for the layer that holds them."""
