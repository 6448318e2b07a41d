"""Pure jax operations with fixed shapes."""
