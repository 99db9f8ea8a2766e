"""Training: the loop, what is open while it runs, what it draws at random, and what it shows."""
