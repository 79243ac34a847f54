"""The workbench: search settings, tabulate and compare runs, show them, cite them, and restore a picture of one's own."""
