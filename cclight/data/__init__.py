"""Where photographs come from and how they become measurements."""
