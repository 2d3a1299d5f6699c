"""The tabs of the page: layout, then wiring. Handlers call one service and return what a view makes of it."""
