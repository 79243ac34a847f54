"""The commands of `cclight`, one to a file."""
