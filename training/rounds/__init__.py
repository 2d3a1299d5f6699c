"""Rounds of labeling, training and evaluation as records that the worker advances."""
