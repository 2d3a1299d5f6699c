"""Agreement of annotators, and how far each of them can be relied on."""
