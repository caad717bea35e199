"""What a series is and what may happen to it: pure, synchronous, without trio, I/O or a clock."""
