"""What the trainers see: scenes by index, pictures, and latents kept on disk."""
