"""The formalism: Gaussian paths, what a network predicts on them, and how guidance varies along them."""
