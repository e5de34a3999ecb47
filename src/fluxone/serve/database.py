"""The tables, and the few things that are asked of them. Any database that SQLAlchemy speaks to.

    jobs   every request that was accepted, until its retention ends
    keys   API keys, hashed

The schema is made and changed by the migrations, never by hand.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from alembic import command
from alembic.config import Config

METADATA = sa.MetaData()

JOBS = sa.Table(
    "jobs",
    METADATA,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("endpoint", sa.String(64), nullable=False),
    sa.Column("model", sa.String(255), nullable=False),
    sa.Column("request", sa.Text, nullable=False),
    sa.Column("loras", sa.Text, nullable=False),
    sa.Column("format", sa.String(8), nullable=False),
    sa.Column("quality", sa.Integer, nullable=False),
    sa.Column("tolerance", sa.Integer, nullable=False),
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("details", sa.Text, nullable=False),
    sa.Column("cost", sa.Float, nullable=False),
    sa.Column("status", sa.String(16), nullable=False, index=True),
    sa.Column("message", sa.Text),
    sa.Column("created", sa.Double, nullable=False, index=True),
    sa.Column("finished", sa.Double),
    sa.Column("digest", sa.String(64)),
    sa.Column("idempotency", sa.String(255)),
    sa.Column("webhook_url", sa.Text),
    sa.Column("webhook_secret", sa.Text),
    sa.Column("webhook_due", sa.Double, index=True),
    sa.Column("webhook_tries", sa.Integer, nullable=False),
    sa.Column("server", sa.String(255), nullable=False, server_default=""),  # that draws it
    sa.Column("lease", sa.Double, nullable=False, server_default="0"),  # until when it must say that it still does
    sa.UniqueConstraint("owner", "idempotency", name="once"),
)
KEYS = sa.Table(
    "keys",
    METADATA,
    sa.Column("id", sa.String(36), primary_key=True),
    sa.Column("name", sa.String(255), nullable=False, unique=True),
    sa.Column("hash", sa.String(64), nullable=False, unique=True),
    sa.Column("scopes", sa.String(255), nullable=False),
    sa.Column("credits", sa.Float),
    sa.Column("per_minute", sa.Integer),
    sa.Column("created", sa.Double, nullable=False),
)

Row = dict[str, Any]


def connect(url: str) -> sa.Engine:
    """Connect, and bring the schema up to date.

    Raises:
        sqlalchemy.exc.SQLAlchemyError: the database is not there.
    """
    engine = sa.create_engine(url, pool_pre_ping=True, hide_parameters=True)  # its errors are logged: no prompts
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _careful)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return engine


def rows(connection: sa.Connection, query: sa.Select[Any]) -> list[Row]:
    """What a query finds, a dict each."""
    return [dict(row) for row in connection.execute(query).mappings()]


def _careful(connection: Any, record: object) -> None:
    """SQLite: readers beside a writer, and nothing that was committed is lost, even with the power."""
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000"):
        connection.execute(f"PRAGMA {pragma}")
