"""What candlesync adds to Hypercorn."""
