"""Shapes an application's contract into settings, commands, shards and units."""
