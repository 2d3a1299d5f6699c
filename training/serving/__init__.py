"""Models in a process of their own while somebody waits: a policy that replies, a model that is examined."""
