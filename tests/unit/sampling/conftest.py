"""The reference implementation's sampling functions, as an oracle."""

from __future__ import annotations

from reference import reference as reference
