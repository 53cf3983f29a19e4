"""Everest for MySQL, Percona Server and MariaDB: the functions that the rest of the engine's users call."""
