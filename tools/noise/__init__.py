"""Parts of noise_audit and label_noise."""
