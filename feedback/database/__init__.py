"""One database from one URL: engine, migrations on opening, health, hot statements."""
