"""Maps of a frozen net, computed once and stored, in place of images."""
