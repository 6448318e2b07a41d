"""Keypoints of one object: discs around them, and their places by votes.

Papandreou et al. 2017 (G-RMI), sections 3.2 and 3.3. Points are (y, x) in
pixels of the crop, pixel (r, c) covering [r, r + 1) x [c, c + 1): the position
(i, j) of a map of stride s is at the point (s i + 0.5, s j + 0.5). Shapes are
fixed and what is absent is masked, so that all of it runs under jit.
"""
