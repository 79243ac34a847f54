"""What a run leaves behind: whole files, the lock, the records, and the one reader of them."""
