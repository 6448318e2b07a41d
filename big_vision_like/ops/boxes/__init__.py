"""Boxes of a detector: anchors, codes, targets, suppression and crops.

Boxes are float32 [..., 4]: y0, x0, y1, x1 in pixels, the last two exclusive.
Shapes are fixed and what is absent is masked, so that all of it runs under jit
and, but for what takes a batch [B, ...] by its signature, under vmap.
"""
