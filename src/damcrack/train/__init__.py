"""Training: networks, losses, the temperature, the loop, export; torch."""
