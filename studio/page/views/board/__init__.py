"""The board of policies as HTML and figures: strengths, wins, distances, and two policies side by side."""
