"""What works for everybody in the background: the filling of the pool, and models that reply."""
