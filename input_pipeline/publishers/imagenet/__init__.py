"""ImageNet-1k and 21k as their publishers distribute them."""
