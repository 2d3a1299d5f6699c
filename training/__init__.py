"""The craft: from preference data to a better policy. Knows ``feedback``; knows nothing of the page."""

import os

# Torch's threads spin while they wait for each other. Beside any other busy process, on small models, spinning is
# ruinous: twenty steps of a tiny model took 79 s instead of 3 s. OpenMP reads this when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
