"""What Alembic runs for every command; the connection is handed over by ``feedback.migrations``."""

from alembic import context
from sqlmodel import SQLModel

import feedback.chat_tables
import feedback.round_tables
import feedback.tables  # noqa: F401  (both fill SQLModel.metadata)

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=SQLModel.metadata, render_as_batch=True)
context.run_migrations()
