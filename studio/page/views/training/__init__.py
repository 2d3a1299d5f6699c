"""Runs, their forms, curves and figures."""
