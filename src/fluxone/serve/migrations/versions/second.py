"""Several servers on one database: whose a job is, and until when."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "second"
down_revision = "first"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the two columns; jobs of before are anybody's."""
    with op.batch_alter_table("jobs") as jobs:
        jobs.add_column(sa.Column("server", sa.String(255), nullable=False, server_default=""))
        jobs.add_column(sa.Column("lease", sa.Double, nullable=False, server_default="0"))


def downgrade() -> None:
    """Take them away."""
    with op.batch_alter_table("jobs") as jobs:
        jobs.drop_column("lease")
        jobs.drop_column("server")
