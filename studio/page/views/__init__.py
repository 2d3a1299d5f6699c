"""Pure functions from values to HTML, tables and plots: no database, no clock."""
