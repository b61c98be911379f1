"""Checks of an inventory and of the files on the controller, as plain functions that touch no host."""
