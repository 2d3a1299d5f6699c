"""REST under /api, one module per resource. Entry: ``routes.add_api``."""
