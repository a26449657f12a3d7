"""Networks, data on the device, the training loop, inference: torch, torchvision and numpy only."""
