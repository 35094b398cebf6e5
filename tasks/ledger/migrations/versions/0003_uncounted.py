"""Allow NULL for tokens that the provider did not count."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

TOKENS = (
    "input_tokens", "output_tokens", "cached_input_tokens", "cache_write_tokens",
    "reasoning_tokens",
)  # fmt: skip


def upgrade() -> None:
    """Change the columns; SQLite cannot alter a column, so Alembic copies the table there."""
    with op.batch_alter_table("attempts") as table:
        for name in TOKENS:
            table.alter_column(name, existing_type=sa.BigInteger, nullable=True)
