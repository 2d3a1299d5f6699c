"""What the page and REST may do, each act with the role it needs. Entry: ``facade.Services``."""
