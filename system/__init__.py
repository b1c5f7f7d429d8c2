"""What the machine offers: files, devices, signals."""
