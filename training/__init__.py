"""The craft: from preference data to a better policy. Knows ``feedback``; knows nothing of the page."""

import os

# Torch's threads spin while they wait for each other. Beside any other busy process, on small models, spinning for
# long is ruinous: twenty steps of a tiny model took 79 s instead of 3 s. Not to spin at all costs a wake at each
# product, two fifths of the time it takes to draw replies, so they spin for some microseconds, as GNU's OpenMP does
# where threads outnumber cores. It reads both when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
