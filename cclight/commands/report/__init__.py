"""`cclight report`: runs on one page."""
