"""The audit log refuses replacement and, on PostgreSQL, truncation as well as change and removal."""

from alembic import op

revision = "0007_audit"
down_revision = "0006_origin"

_REFUSAL = "the audit log can only grow"


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(
            "CREATE TRIGGER audit_no_truncate BEFORE TRUNCATE ON audit "
            "FOR EACH STATEMENT EXECUTE FUNCTION audit_only_grows()"
        )
        return
    # INSERT OR REPLACE removes the old row without firing its DELETE trigger, unless recursive triggers are on, which
    # is every connection's own choice. Without a number given, NEW.number is -1 here.
    op.execute(
        "CREATE TRIGGER audit_no_replace BEFORE INSERT ON audit "
        "WHEN NEW.number > 0 AND EXISTS (SELECT 1 FROM audit WHERE number = NEW.number) "
        f"BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
    )
