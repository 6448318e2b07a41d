"""Near-duplicate images within and between sets (Sun et al. 2017, appendix A).

Signatures of every image (a perceptual hash, a vector) go to shards on disk
once; pairs with close signatures are candidates; candidates are compared pixel
by pixel after alignment. tools/dedup.py is the command, docs/near-duplicates.md
says what is found and what it costs.
"""
