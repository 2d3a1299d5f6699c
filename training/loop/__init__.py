"""Rounds of generate, judge, train and evaluate with a simulated annotator."""
