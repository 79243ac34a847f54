"""What happens around a prediction: metrics, images, tables. One callback, one file."""
