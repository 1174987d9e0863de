"""What the flows are made of: open, call the mathematics, write, return a key."""
