"""The first schema: jobs and keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "first"
down_revision = None

TEXTS = {"owner": 64, "endpoint": 64, "model": 255}


def upgrade() -> None:
    """Make both tables."""
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(36), primary_key=True),
        *(sa.Column(name, sa.String(length), nullable=False) for name, length in TEXTS.items()),
        *(sa.Column(name, sa.Text, nullable=False) for name in ("request", "loras")),
        sa.Column("format", sa.String(8), nullable=False),
        *(sa.Column(name, sa.Integer, nullable=False) for name in ("quality", "tolerance", "priority")),
        sa.Column("details", sa.Text, nullable=False),
        sa.Column("cost", sa.Float, nullable=False),
        sa.Column("status", sa.String(16), nullable=False, index=True),
        sa.Column("message", sa.Text),
        sa.Column("created", sa.Double, nullable=False, index=True),
        sa.Column("finished", sa.Double),
        sa.Column("digest", sa.String(64)),
        sa.Column("idempotency", sa.String(255)),
        *(sa.Column(name, sa.Text) for name in ("webhook_url", "webhook_secret")),
        sa.Column("webhook_due", sa.Double, index=True),
        sa.Column("webhook_tries", sa.Integer, nullable=False),
        sa.UniqueConstraint("owner", "idempotency", name="once"),
    )
    op.create_table(
        "keys",
        sa.Column("id", sa.String(36), primary_key=True),
        sa.Column("name", sa.String(255), nullable=False, unique=True),
        sa.Column("hash", sa.String(64), nullable=False, unique=True),
        sa.Column("scopes", sa.String(255), nullable=False),
        sa.Column("credits", sa.Float),
        sa.Column("per_minute", sa.Integer),
        sa.Column("created", sa.Double, nullable=False),
    )


def downgrade() -> None:
    """Drop both tables."""
    op.drop_table("jobs")
    op.drop_table("keys")
