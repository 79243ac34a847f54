"""What is measured: per-image metrics, FID and KID, and how ranks' numbers become a table."""
