"""The studio as one ASGI app. Entry: ``app.create_app``."""
