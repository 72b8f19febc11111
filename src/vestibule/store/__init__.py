"""The database: engine settings, tables, migrations."""
