"""The workbench: commands that read runs, search settings and show results, one to a file."""
