"""The database's schema, step by step; `database.connect` takes the steps that are missing."""
