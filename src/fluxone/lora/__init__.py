"""LoRA and its relatives: read in every style, put beside or into the weights, written, inspected, extracted."""
