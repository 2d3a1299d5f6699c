"""The Overview as HTML and figures: the round as a picture, the next step, charts, what runs, champions, history."""
