"""The networks: pure tensors in, pure tensors out; no files, no devices, no names of models."""
