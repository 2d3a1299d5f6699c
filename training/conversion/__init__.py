"""Models in another form than a directory of safetensors, written as one once, in the cache of a user's models."""
