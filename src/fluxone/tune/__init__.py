"""Fine-tuning a finished model of any shape on a folder of pictures: a character, a style, a product.

    folder --lint--> pictures --cache--> latents and embeddings --trainer--> adapter --looks--> choice --write--> files

The network is the pipeline's own, at whatever precision it was loaded in; what is learnt stands beside its layers.
"""
