"""The model of a checkpoint at work: vectors, masks, any prediction."""
