"""The commands of ``studio``, grouped as a person thinks of them; ``studio.cli`` puts them together."""
