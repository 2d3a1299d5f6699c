"""Pure functions on values: pairs from replies, votes from verdicts, annotations in stored order. No session."""
